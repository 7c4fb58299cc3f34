//! The toasts about queued and ended tasks.

use super::TaskRegistry;
use crate::actors::toaster::Show;
use crate::domain::foreign_text::one_line;
use crate::domain::ids::TaskId;
use crate::domain::task::{TaskStatus, cut};
use crate::ports::agent_server::ToastVariant;

impl TaskRegistry {
    pub(super) fn toast_queued(&self, id: &TaskId) {
        if !self.env.config.notifications.toasts {
            return;
        }
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let names = |wanted: TaskStatus| {
            // Only the newest tasks are searched: a long queue must not slow down launches.
            let newest = self.by_acceptance.values().rev().take(200);
            let names: Vec<_> = newest
                .filter_map(|id| self.tasks.get(id))
                .filter(|entry| entry.task.status() == wanted)
                .map(|entry| one_line(cut(&entry.task.description, 40)))
                .take(5)
                .collect();
            names.join(", ")
        };
        let mut message = one_line(cut(&entry.task.description, 80)).into_owned();
        for (label, status) in [
            ("running", TaskStatus::Running),
            ("waiting", TaskStatus::Pending),
        ] {
            let names = names(status);
            if !names.is_empty() {
                message.push_str(&format!("\n{label}: {names}"));
            }
        }
        let title = "Background task queued".to_owned();
        self.refs.toaster.send(Show {
            title,
            message,
            variant: ToastVariant::Info,
        });
    }

    pub(super) fn toast_ended(&self, id: &TaskId) {
        if !self.env.config.notifications.toasts {
            return;
        }
        let Some(entry) = self.tasks.get(id) else {
            return;
        };
        let task = &entry.task;
        let all = task
            .parent_session
            .as_ref()
            .is_some_and(|parent| self.open_below(parent) == 0);
        let title = if all {
            "All background tasks finished"
        } else {
            "Background task finished"
        };
        let variant = if task.status().is_failure() {
            ToastVariant::Error
        } else {
            ToastVariant::Success
        };
        let message = one_line(cut(&task.description, 80));
        let message = format!("{message}: {}", task.status().as_str());
        self.refs.toaster.send(Show {
            title: title.to_owned(),
            message,
            variant,
        });
    }
}
