//! Where the service's secret comes from when nobody names a place: the file that opencode's plugin reads too.

use crate::config::Place;

fn secret_of(place: &Place) -> Option<String> {
    let token = place.settings().token?;
    Some(token.reveal().to_owned())
}

#[test]
fn the_secret_is_read_from_its_usual_file_unless_the_configuration_says_otherwise() {
    let place = Place::new();
    let usual = place.environment.token_file().unwrap();
    std::fs::write(&usual, "usual\n").unwrap();
    assert_eq!(secret_of(&place).as_deref(), Some("usual"));
    // It is a secret like any.
    let place = place.set("listen=0.0.0.0:7717");
    assert_eq!(secret_of(&place).as_deref(), Some("usual"));

    let elsewhere = tempfile::tempdir().unwrap();
    let xdg = elsewhere.path().join("greenroom");
    std::fs::create_dir(&xdg).unwrap();
    std::fs::write(xdg.join("token"), "of xdg").unwrap();
    let place = Place::new().env("XDG_CONFIG_HOME", elsewhere.path().to_str().unwrap());
    assert_eq!(secret_of(&place).as_deref(), Some("of xdg"));
    assert_eq!(secret_of(&place.set("token=mine")).as_deref(), Some("mine"));

    for (choice, secret) in [("token=", None), ("token=mine", Some("mine"))] {
        let place = Place::new().set(choice);
        std::fs::write(place.environment.token_file().unwrap(), "usual").unwrap();
        assert_eq!(secret_of(&place).as_deref(), secret, "{choice}");
    }
}

#[test]
fn a_usual_file_without_a_secret_in_it_is_an_error_and_not_no_secret() {
    let empty = Place::new();
    std::fs::write(empty.environment.token_file().unwrap(), " \n").unwrap();
    assert_eq!(
        empty.complaint().trim_end(),
        "error: /home/.config/greenroom/token: `token_file`: /home/.config/greenroom/token is empty\n\
         hint: put the secret alone into /home/.config/greenroom/token, remove it, or set `token_file`"
    );
    let unreadable = Place::new();
    std::fs::create_dir(unreadable.environment.token_file().unwrap()).unwrap();
    let complaint = unreadable.complaint();
    assert!(complaint.contains("cannot be read"), "{complaint}");
}
