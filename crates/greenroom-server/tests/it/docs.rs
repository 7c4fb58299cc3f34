//! The page that lists the configuration names every key, and no other.

use greenroom_server::config::keys::KEYS;

#[test]
fn the_configuration_page_lists_every_key() {
    let page = include_str!("../../../../docs/configuration.md");
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(listed, known);
}
