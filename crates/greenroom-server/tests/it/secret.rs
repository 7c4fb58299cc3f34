//! The default file of the secret, which opencode's plugin reads too.

use crate::config::TestEnv;

fn secret_of(place: &TestEnv) -> Option<String> {
    let token = place.settings().token?;
    Some(token.reveal().to_owned())
}

#[test]
fn token_is_read_from_the_default_file() {
    let place = TestEnv::new();
    let usual = place.environment.token_file().unwrap();
    std::fs::write(&usual, "usual\n").unwrap();
    assert_eq!(secret_of(&place).as_deref(), Some("usual"));
    // It counts as a configured secret.
    let place = place.set("listen=0.0.0.0:7717");
    assert_eq!(secret_of(&place).as_deref(), Some("usual"));

    let elsewhere = tempfile::tempdir().unwrap();
    let xdg = elsewhere.path().join("greenroom");
    std::fs::create_dir(&xdg).unwrap();
    std::fs::write(xdg.join("token"), "of xdg").unwrap();
    let place = TestEnv::new().env("XDG_CONFIG_HOME", elsewhere.path().to_str().unwrap());
    assert_eq!(secret_of(&place).as_deref(), Some("of xdg"));
    assert_eq!(secret_of(&place.set("token=mine")).as_deref(), Some("mine"));

    for (choice, secret) in [("token=", None), ("token=mine", Some("mine"))] {
        let place = TestEnv::new().set(choice);
        std::fs::write(place.environment.token_file().unwrap(), "usual").unwrap();
        assert_eq!(secret_of(&place).as_deref(), secret, "{choice}");
    }
}

#[test]
fn empty_default_token_file_is_an_error() {
    let empty = TestEnv::new();
    std::fs::write(empty.environment.token_file().unwrap(), " \n").unwrap();
    assert_eq!(
        empty.error_text().trim_end(),
        "error: /home/.config/greenroom/token: `token_file`: /home/.config/greenroom/token is empty\n\
         hint: put the secret alone into /home/.config/greenroom/token, remove it, or set `token_file`"
    );
    let unreadable = TestEnv::new();
    std::fs::create_dir(unreadable.environment.token_file().unwrap()).unwrap();
    let error_text = unreadable.error_text();
    assert!(error_text.contains("cannot be read"), "{error_text}");
}
