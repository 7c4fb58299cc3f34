//! The default file of the secret, which opencode's plugin reads too.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use greenroom_server::config::token;

use crate::config::TestEnv;

/// Writes a file that only its owner can read.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn secret_of(place: &TestEnv) -> Option<String> {
    let token = place.settings().token?;
    Some(token.reveal().to_string())
}

#[test]
fn token_is_read_from_the_default_file() {
    let place = TestEnv::new();
    let usual = place.environment.token_file().unwrap();
    write(&usual, "usual\n");
    assert_eq!(secret_of(&place).as_deref(), Some("usual"));
    // It counts as a configured secret.
    let place = place.set("listen=0.0.0.0:7717");
    assert_eq!(secret_of(&place).as_deref(), Some("usual"));

    let elsewhere = tempfile::tempdir().unwrap();
    let xdg = elsewhere.path().join("greenroom");
    std::fs::create_dir(&xdg).unwrap();
    write(&xdg.join("token"), "of xdg");
    let place = TestEnv::new().env("XDG_CONFIG_HOME", elsewhere.path().to_str().unwrap());
    assert_eq!(secret_of(&place).as_deref(), Some("of xdg"));
    assert_eq!(secret_of(&place.set("token=mine")).as_deref(), Some("mine"));

    for (choice, secret) in [
        ("token=", Some("usual")),
        ("token=mine", Some("mine")),
        ("auth=none", None),
    ] {
        let place = TestEnv::new().set(choice);
        write(&place.environment.token_file().unwrap(), "usual");
        assert_eq!(secret_of(&place).as_deref(), secret, "{choice}");
    }
}

#[test]
fn empty_default_token_file_is_an_error() {
    let empty = TestEnv::new();
    write(&empty.environment.token_file().unwrap(), " \n");
    assert_eq!(
        empty.error_text().trim_end(),
        "error: /home/.config/greenroom/token: `token_file`: /home/.config/greenroom/token is empty\n\
         hint: put the secret alone into /home/.config/greenroom/token, remove it, or set `token_file`"
    );
    let folder = TestEnv::new();
    std::fs::create_dir(folder.environment.token_file().unwrap()).unwrap();
    let error_text = folder.error_text();
    assert!(error_text.contains("not a regular file"), "{error_text}");
}

#[test]
fn default_token_file_is_private() {
    let place = TestEnv::new();
    let path = place.environment.token_file().unwrap();
    std::fs::write(&path, "usual").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        place.error_text().trim_end(),
        "error: /home/.config/greenroom/token: other users can read it (mode 644)\n\
         hint: chmod 600 /home/.config/greenroom/token"
    );
    let place = TestEnv::new();
    let path = place.environment.token_file().unwrap();
    let target = place.root.path().join("target");
    write(&target, "theirs");
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let error_text = place.error_text();
    assert!(error_text.contains("not a regular file"), "{error_text}");
}

#[test]
fn service_creates_its_token_once() {
    let place = TestEnv::new();
    let start = || {
        let mut settings = place.settings();
        token::ensure(&mut settings, &place.environment).unwrap();
        settings.token.unwrap().reveal()
    };
    let first = start();
    assert_eq!(first.len(), 64);
    assert_eq!(start(), first);
    assert_eq!(secret_of(&place).as_deref(), Some(&*first));
    token::rotate(&place.environment).unwrap();
    assert_ne!(start(), first);

    let place = TestEnv::new().set("auth=none");
    let mut settings = place.settings();
    token::ensure(&mut settings, &place.environment).unwrap();
    assert!(settings.token.is_none());
    assert!(!place.environment.token_file().unwrap().exists());
    let error = place.set("listen=0.0.0.0:1").error_text();
    assert!(
        error.contains("`auth`: \"none\" is for loopback addresses"),
        "{error}"
    );
}
