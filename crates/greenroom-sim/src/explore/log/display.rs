//! Formats the log, one line for each entry.

use std::fmt;

use super::{Call, Entry, LogEvent};

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9} ", self.at)?;
        match &self.event {
            LogEvent::Requested(request) => write!(f, "request  {request:?}"),
            LogEvent::Answered {
                request,
                answer: Ok(Some(task)),
            } => {
                write!(
                    f,
                    "response #{request} {} run {} {}",
                    task.id,
                    task.run,
                    task.status().as_str()
                )
            }
            LogEvent::Answered {
                request,
                answer: Ok(None),
            } => write!(f, "response #{request} ok"),
            LogEvent::Answered {
                request,
                answer: Err(error),
            } => write!(f, "refused  #{request} {error}"),
            LogEvent::ShutDown(report) => write!(f, "shutdown {report:?}"),
            LogEvent::TaskChanged(change) => {
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
            LogEvent::TaskFound(task) => write!(
                f,
                "lookup   {} run {} {}",
                task.id,
                task.run,
                task.status().as_str()
            ),
            LogEvent::CallStarted {
                number,
                call: Call::Notify { parent, notice },
            } => {
                let tasks: Vec<String> = notice
                    .facts
                    .tasks
                    .iter()
                    .map(|fact| format!("{} {}", fact.task, fact.status.as_str()))
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
            LogEvent::CallStarted { number, call } => write!(f, "call {number:>3} {call:?}"),
            LogEvent::CallApplied(number) => write!(f, "effect   of {number}"),
            LogEvent::CallReturned { number, answer } => {
                write!(f, "answer   to {number}: {answer}")
            }
            LogEvent::EventDelivered { session, kind, .. } => {
                write!(f, "event    {session} {kind}")
            }
            LogEvent::NoticeStored {
                parent,
                notice,
                wakes,
            } => {
                let silent = if *wakes { "" } else { ", silent" };
                write!(f, "stored   {notice} in {parent}{silent}")
            }
            LogEvent::ReportedDelivered { parent, notice } => {
                write!(f, "delivered {notice} to {parent}, as reported")
            }
            LogEvent::InstanceEnded => f.write_str("instance ended"),
            LogEvent::SecondProcessEnded => f.write_str("instance of another process ended"),
            LogEvent::SessionFact { session, fact } => write!(f, "session  {session} {fact:?}"),
            LogEvent::LinkChanged(up) => {
                write!(f, "link     {}", if *up { "connected" } else { "broken" })
            }
            LogEvent::ServerOnline(online) => {
                write!(f, "server   {}", if *online { "online" } else { "offline" })
            }
            LogEvent::Healed => f.write_str("healed"),
            LogEvent::FailpointHit(place) => write!(f, "failpoint {place}"),
            LogEvent::ProcessCrashed(place) => write!(f, "crash    {place}"),
        }
    }
}
