//! Generated ids and their aliases. The driver adds a task when its launch is answered; the scripted server
//! adds a session when it creates one. Both look names up, and the finished trace is rewritten with the
//! aliases.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::lock;

/// Aliases and ids, in both directions. A cheap clone.
#[derive(Debug, Clone, Default)]
pub struct Names {
    table: Arc<Mutex<Table>>,
    answered: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    alias_of: HashMap<String, String>,
    id_of: HashMap<String, String>,
    launching: HashMap<String, usize>,
}

impl Names {
    /// Records that a launch is in flight. Lookups of its task wait for [`Names::launched`].
    pub fn launching(&self, alias: &str) {
        *self.table().launching.entry(alias.to_owned()).or_default() += 1;
    }

    /// Records the answer to a launch, with the id of the task if it was accepted.
    pub fn launched(&self, alias: &str, id: Option<&str>) {
        {
            let mut table = self.table();
            if let Some(open) = table.launching.get_mut(alias) {
                *open -= 1;
                if *open == 0 {
                    table.launching.remove(alias);
                }
            }
            if let Some(id) = id {
                table.pair(alias, id);
            }
        }
        self.answered.notify_waiters();
    }

    /// Records a session created for a task. `$alias` stands for the newest one.
    pub fn session_made(&self, task_alias: &str, session: &str) {
        self.table().pair(&format!("${task_alias}"), session);
    }

    /// Returns the alias of an id, or the id itself.
    pub fn alias(&self, id: &str) -> String {
        self.table()
            .alias_of
            .get(id)
            .cloned()
            .unwrap_or_else(|| id.to_owned())
    }

    /// Returns the present id of an alias, or the text itself.
    pub fn id(&self, alias: &str) -> String {
        self.table()
            .id_of
            .get(alias)
            .cloned()
            .unwrap_or_else(|| alias.to_owned())
    }

    /// Returns the id of a task after all launches under that alias are answered.
    pub async fn id_when_launched(&self, alias: &str) -> String {
        self.until(|table| !table.launching.contains_key(alias))
            .await;
        self.id(alias)
    }

    /// Returns the alias of a task id. Waits while any launch is in flight: the session may be created before
    /// the caller of the launch has read the answer.
    pub async fn alias_when_launched(&self, id: &str) -> String {
        self.until(|table| table.alias_of.contains_key(id) || table.launching.is_empty())
            .await;
        self.alias(id)
    }

    /// Returns a JSON text with every generated id in its strings replaced by its alias.
    pub fn rewrite(&self, json: &str) -> String {
        let table = self.table();
        let mut rewritten = String::with_capacity(json.len());
        let mut rest = json;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                // An escape sequence does not belong to the word after it.
                '\\' if rest[1..].starts_with('u') => 6,
                '\\' => 2,
                c if is_id_char(c) => rest.find(|c| !is_id_char(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            let (piece, next) = rest.split_at(length.min(rest.len()));
            match table.alias_of.get(piece) {
                Some(alias) => {
                    rewritten.push_str(serde_json::json!(alias).to_string().trim_matches('"'))
                }
                None => rewritten.push_str(piece),
            }
            rest = next;
        }
        rewritten
    }

    async fn until(&self, known: impl Fn(&Table) -> bool) {
        loop {
            // Created before the check, so that an answer between the check and the wait is not missed.
            let answered = self.answered.notified();
            if known(&self.table()) {
                return;
            }
            answered.await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    fn pair(&mut self, alias: &str, id: &str) {
        self.alias_of.insert(id.to_owned(), alias.to_owned());
        self.id_of.insert(alias.to_owned(), id.to_owned());
    }
}

fn is_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn ids_are_replaced_by_aliases() {
        let names = Names::default();
        names.launching("a");
        names.launched("a", Some("bg_00000001"));
        names.session_made("a", "ses_000001");
        assert_eq!(
            names.rewrite("taken over by bg_00000001, in (ses_000001)."),
            "taken over by a, in ($a)."
        );
        assert_eq!(names.rewrite(r#""by\nbg_00000001\"""#), r#""by\na\"""#);
        assert_eq!(
            names.rewrite("bg_000000012 is another, ses_ no id"),
            "bg_000000012 is another, ses_ no id"
        );
    }

    #[test]
    fn unknown_alias_is_returned_unchanged() {
        let names = Names::default();
        assert_eq!(names.id("$a"), "$a");
        names.session_made("a", "ses_000001");
        assert_eq!(names.id("$a"), "ses_000001");
        assert_eq!(names.alias("ses_000001"), "$a");
    }

    #[test]
    fn lookup_waits_for_launch() {
        let names = Names::default();
        names.launching("a");
        let mut wait = Box::pin(names.id_when_launched("a"));
        assert_eq!(wait.as_mut().now_or_never(), None);
        names.launched("a", Some("bg_00000001"));
        assert_eq!(wait.as_mut().now_or_never().as_deref(), Some("bg_00000001"));
    }
}
