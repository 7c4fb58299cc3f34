//! The configuration page lists exactly the existing keys.

use greenroom_server::config::keys::KEYS;

#[test]
fn configuration_page_lists_every_key() {
    let page = include_str!("../../../../docs/configuration.md");
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(listed, known);
}
