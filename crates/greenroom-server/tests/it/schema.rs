//! The schema of the configuration file and the loader accept the same values.

use greenroom_server::config::keys::KEYS;
use greenroom_server::config::schema::schema;
use greenroom_server::config::value_type::ValueType;
use greenroom_server::config::{Environment, Settings, load};
use serde_json::Value;

use crate::config::TestEnv;

/// Values for a key. The schema and the loader must agree on those in `both`; only the loader can judge the others.
struct Tries {
    both: Vec<(String, bool)>,
    loader_alone: Vec<String>,
}

fn tries(name: &str, value_type: ValueType) -> Tries {
    let mut both = Vec::new();
    let mut loader_alone = Vec::new();
    let mut good = |value: &str| both.push((value.to_owned(), true));
    match value_type {
        ValueType::Count { min, max } => {
            good(&min.to_string());
            good(&max.to_string());
            for bad in [
                format!("{}", i64::from(min) - 1),
                format!("{}", i64::from(max) + 1),
                "\"3\"".to_owned(),
                "1.5".to_owned(),
                "true".to_owned(),
                "[3]".to_owned(),
            ] {
                both.push((bad, false));
            }
        }
        ValueType::Flag => {
            good("true");
            good("false");
            for bad in ["\"true\"", "1", "[]"] {
                both.push((bad.to_owned(), false));
            }
        }
        ValueType::Duration { max, zero, .. } => {
            for time in ["1m", "\t1m  0s ", "0.5h", "60000ms", "1m0s"] {
                good(&format!("{time:?}"));
            }
            for (value, taken) in [("0", zero), ("\"soon\"", false), ("\"\"", false)] {
                both.push((value.to_owned(), taken));
            }
            for bad in ["180", "\"3\"", "\"-1s\"", "\"1m,\"", "true", "\"s\""] {
                both.push((bad.to_owned(), false));
            }
            loader_alone.push(format!("\"{}s\"", max.as_secs() + 1));
            if !zero {
                loader_alone.push("\"0\"".to_owned());
            }
        }
        ValueType::Choice(names) => {
            names.iter().for_each(|name| good(&format!("{name:?}")));
            for bad in ["\"other\"", "1", "\"\""] {
                both.push((bad.to_owned(), false));
            }
        }
        ValueType::Rules => {
            for value in [
                "{ deny = [\"write\"] }",
                "{ deny = [], allow = [\"task\"] }",
                "{}",
            ] {
                good(value);
            }
            for bad in [
                "{ dney = [] }",
                "{ deny = \"write\" }",
                "{ deny = [1] }",
                "3",
                "{ deny = [\"\\u001b\"] }",
            ] {
                both.push((bad.to_owned(), false));
            }
        }
        ValueType::Text { .. } => {
            let value = match name {
                "listen" => "127.0.0.1:1",
                "opencode.url" => "http://127.0.0.1:1",
                _ => "text",
            };
            good(&format!("{value:?}"));
            let long = "x".repeat(5000);
            for bad in [
                "3",
                "\"a\\u001bb\"",
                "\"a\\u0000\"",
                "\"a\\nb\"",
                &format!("\"{long}\""),
            ] {
                both.push((bad.to_owned(), false));
            }
            if name == "listen" {
                for bad in ["7717", "127.0.0.1", "example.org:80", ""] {
                    both.push((format!("{bad:?}"), false));
                }
                loader_alone.push("\"999.0.0.1:1\"".to_owned());
            }
            if name == "opencode.url" {
                both.push(("\"\"".to_owned(), true));
                for bad in ["https://127.0.0.1", "127.0.0.1:4096", "http://"] {
                    both.push((format!("{bad:?}"), false));
                }
            }
        }
    }
    Tries { both, loader_alone }
}

fn loads(text: &str) -> Result<Settings, String> {
    let place = TestEnv::new().folder_file(text);
    // The named token file must exist.
    std::fs::write(place.environment.folder.join("text"), "s3cret").unwrap();
    load(&place.sources, &place.environment)
        .map(|loaded| loaded.settings)
        .map_err(|error| error.to_string())
}

fn as_json(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn schema_and_loader_accept_the_same_values() {
    let validator = jsonschema::draft7::new(&schema()).unwrap();
    let mut tried = 0;
    for key in KEYS {
        let Tries { both, loader_alone } = tries(key.name, key.field.value_type);
        let entry = |value: &str| {
            if key.has_entries() {
                format!("{}.\"a/b.c\" = {value}", key.name)
            } else {
                format!("{} = {value}", key.name)
            }
        };
        for (value, taken) in both {
            let text = entry(&value);
            let loaded = loads(&text);
            assert_eq!(loaded.is_ok(), taken, "loader: {text}: {loaded:?}");
            if let Err(error_text) = loaded {
                assert!(error_text.contains(key.name), "{text}: {error_text}");
            }
            assert_eq!(validator.is_valid(&as_json(&text)), taken, "schema: {text}");
            tried += 1;
        }
        for value in loader_alone {
            let text = entry(&value);
            assert!(loads(&text).is_err(), "loader: {text}");
            assert!(validator.is_valid(&as_json(&text)), "schema: {text}");
        }
    }
    assert!(tried > 10 * KEYS.len() / 2, "{tried}");
    for wrong in ["zzz = 1", "[limits]\ndefualt = 1", "limits = 3"] {
        assert!(
            loads(wrong).is_err() && !validator.is_valid(&as_json(wrong)),
            "{wrong}"
        );
    }
}

#[test]
fn schema_defaults_match_settings() {
    let defaults = Settings::default();
    for key in KEYS.iter().filter(|key| !key.has_entries()) {
        let schema = schema();
        let place = key
            .name
            .split('.')
            .fold(&schema, |place, part| &place["properties"][part]);
        let value = serde_json::to_value((key.field.get)(&defaults)).unwrap();
        assert_eq!(place["default"], value, "{}", key.name);
        assert!(
            place["description"]
                .as_str()
                .unwrap()
                .starts_with(key.description)
        );
    }
}

#[test]
fn config_show_round_trips() {
    use greenroom_server::config::effective::{effective, toml_text};
    let place = TestEnv::new()
        .user_file("token = \"s3cret\"\n[limits]\nmax = 7\nproviders = { \"my prov\" = 0 }\n[agents.explore]\ndeny = [\"bash\"]\n[agents.\"a.b\"]\n")
        .set("limits.models.\"acme/big\"=2")
        .env("GREENROOM_LIFECYCLE__STALE_TIMEOUT", "0")
        .set("opencode.directory=/project")
        .set("journal=/kept/journal.db")
        .set("notifications.debounce=1s 500ms");
    let loaded = load(&place.sources, &place.environment).unwrap();
    let text = toml_text(&effective(&loaded));
    assert!(!text.contains("s3cret"), "{text}");
    for line in [
        "limits.max = 7",
        "limits.models.\"acme/big\" = 2",
        "agents.\"a.b\".deny = []",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let again = TestEnv::new().folder_file(&text);
    let again = load(&again.sources, &again.environment).unwrap();
    assert_eq!(again.settings.core, loaded.settings.core);
    assert_eq!(again.settings.opencode, loaded.settings.opencode);
    let home = place.root.path().display().to_string();
    insta::assert_snapshot!(text.replace(&home, ""));
}

#[test]
fn defaults_need_no_environment() {
    let environment = Environment::default();
    assert!(load(&greenroom_server::config::Sources::default(), &environment).is_ok());
}
