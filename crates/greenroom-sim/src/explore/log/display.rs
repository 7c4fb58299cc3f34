//! How the log reads: a line for each entry.

use std::fmt;

use super::{Call, Entry, What};

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9} ", self.at)?;
        match &self.what {
            What::Asked(order) => write!(f, "ask      {order:?}"),
            What::Told {
                asked,
                answer: Ok(Some(task)),
            } => {
                write!(
                    f,
                    "told     #{asked} {} run {} {}",
                    task.id,
                    task.run,
                    task.status().as_str()
                )
            }
            What::Told {
                asked,
                answer: Ok(None),
            } => write!(f, "told     #{asked} ok"),
            What::Told {
                asked,
                answer: Err(error),
            } => write!(f, "refused  #{asked} {error}"),
            What::Closed(report) => write!(f, "closed   {report:?}"),
            What::Changed(change) => {
                let from = change.from.map_or("-", |from| from.as_str());
                let task = &change.task;
                write!(
                    f,
                    "task     {} run {}: {from} -> {}",
                    task.id,
                    task.run,
                    change.to.as_str()
                )?;
                if let Some(parent) = &task.parent_session {
                    write!(f, " of {parent}")?;
                }
                for text in task.error().into_iter().chain(task.note()) {
                    write!(f, " ({text})")?;
                }
                Ok(())
            }
            What::Found(task) => write!(
                f,
                "found    {} run {} {}",
                task.id,
                task.run,
                task.status().as_str()
            ),
            What::Call {
                number,
                call: Call::Notify { parent, notice },
            } => {
                let tasks: Vec<String> = notice
                    .facts
                    .tasks
                    .iter()
                    .map(|told| format!("{} {}", told.task, told.status.as_str()))
                    .collect();
                write!(
                    f,
                    "call {number:>3} Notify {parent} {} {:?} [{}] {} remain{}",
                    notice.id,
                    notice.facts.kind,
                    tasks.join(", "),
                    notice.facts.remaining,
                    if notice.silent { ", silent" } else { "" }
                )
            }
            What::Call { number, call } => write!(f, "call {number:>3} {call:?}"),
            What::Effect(number) => write!(f, "effect   of {number}"),
            What::Returned { number, answer } => write!(f, "answer   to {number}: {answer}"),
            What::Event { session, kind, .. } => write!(f, "event    {session} {kind}"),
            What::Truth { session, fact } => write!(f, "truth    {session} {fact:?}"),
            What::Link(up) => write!(f, "link     {}", if *up { "connected" } else { "broken" }),
            What::Online(online) => {
                write!(f, "server   {}", if *online { "online" } else { "away" })
            }
            What::Healed => f.write_str("healed"),
            What::Sabotaged(place) => write!(f, "sabotage {place}"),
            What::Crashed(place) => write!(f, "crash    {place}"),
        }
    }
}
