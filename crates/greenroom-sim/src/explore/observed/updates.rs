//! Updates the observed state from the entries of the log.

use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::{Task, TaskStatus};

use super::{LogPosition, OPEN_ENDED, ObservedState, Origin, ReportedAbort, RunFacts};
use crate::explore::log::{Call, Entry, Fact, LogEvent, Request};

impl ObservedState {
    /// Applies an entry of the log.
    pub fn apply(&mut self, index: usize, entry: &Entry) {
        let position = LogPosition {
            index,
            at: entry.at,
        };
        self.last_index_at.insert(entry.at, index);
        match &entry.event {
            LogEvent::Requested(request) => self.request_sent(position, request),
            LogEvent::Answered { request, answer } => {
                self.open_cancels.remove(request);
                self.unpublished_parents.remove(request);
                self.open_cancel_targets.remove(request);
                if let (Some(Request::Track { task, parent, .. }), Ok(answer)) =
                    (self.requests.get(request).cloned(), answer)
                {
                    // An earlier unanswered track of the task is decided by now.
                    self.reparenting
                        .retain(|index, other| *other != task || index > request);
                    // The parent of a later run was decided by the resume that began it.
                    let answered = answer.as_ref().map(|answer| answer.run);
                    let newest = self.newest.get(&task).map(|index| self.runs[*index].run);
                    if answered.is_none() || newest.is_none() || answered == newest {
                        self.reparented(&task, &parent, position);
                    }
                }
            }
            LogEvent::TaskFound(task) => self.apply_found(position, task),
            LogEvent::ShutDown(_) => self.shutdown_completed = Some(position),
            LogEvent::TaskChanged(change) => self.apply_change(position, change),
            LogEvent::CallStarted { number, call } => {
                self.calls.insert(*number, call.clone());
                self.call_started(position, call);
            }
            LogEvent::CallApplied(number) => self.call_applied(position, *number),
            LogEvent::CallReturned { answer, number } if answer != "ok" => {
                self.last_fault = Some(position);
                if *number > self.calls_at_crash {
                    self.last_disruption = Some(position);
                }
            }
            LogEvent::CallReturned { .. } => {}
            LogEvent::EventDelivered {
                session,
                kind,
                sign,
            } => self.event_delivered(position, session, kind, *sign),
            LogEvent::SessionFact { session, fact } => self.session_fact(position, session, *fact),
            LogEvent::NoticeStored { notice, .. } => {
                self.stored_notices.insert(notice.clone());
            }
            LogEvent::ReportedDelivered { notice, .. } => {
                self.delivered_notices.insert(notice.clone());
            }
            LogEvent::InstanceEnded => {
                self.instance_ends.push(position);
                self.last_fault = Some(position);
                self.last_disruption = Some(position);
            }
            LogEvent::LinkChanged(connected) => {
                self.last_fault = Some(position);
                self.last_disruption = Some(position);
                if !connected {
                    self.stream_losses.push(position);
                }
            }
            LogEvent::SecondProcessEnded => {}
            LogEvent::ServerOnline(_) => {
                self.last_fault = Some(position);
                self.last_disruption = Some(position);
            }
            LogEvent::Healed => self.healed = Some(position),
            LogEvent::ProcessCrashed(_) => {
                (self.process_crashed, self.last_fault) = (Some(position), Some(position));
                self.crashes.push(position);
                self.calls_at_crash = self.calls.last_key_value().map_or(0, |(last, _)| *last);
                // A run that was starting waits in the queue again.
                for run in self.runs.iter_mut().filter(|run| run.is_open()) {
                    if run.running.is_none() {
                        run.started = None;
                    }
                }
            }
            // Queues, slots, notifiers and the poller decide nothing about a run, so their panics must not
            // change its outcome. A call of theirs may have been cut off.
            LogEvent::FailpointHit(name)
                if !name.starts_with("registry") && !name.starts_with("task") =>
            {
                self.last_fault = Some(position);
            }
            LogEvent::FailpointHit(name) => {
                if name.starts_with("registry") {
                    self.registry_panicked = Some(position);
                }
                self.actor_panicked = true;
                self.runs
                    .iter_mut()
                    .filter(|run| run.is_open())
                    .for_each(|run| run.actor_panicked = true);
            }
        }
    }

    /// Applies the result of a lookup in place of the changes that were not published.
    fn apply_found(&mut self, position: LogPosition, task: &Task) {
        for run in self
            .runs
            .iter_mut()
            .filter(|run| run.task == task.id && run.is_open())
        {
            if run.run < task.run || task.status().is_terminal() {
                run.ended = Some((position, task.status()));
                run.error = task.error().map(str::to_owned);
                run.session.clone_from(&task.session);
            }
        }
    }

    fn request_sent(&mut self, position: LogPosition, request: &Request) {
        self.requests.insert(position.index, request.clone());
        let parent = match request {
            Request::Launch { parent, .. } => parent.clone(),
            Request::Track { parent, .. } => Some(parent.clone()),
            Request::Resume { session, parent } => parent.clone().or_else(|| {
                let owner = self.session(session)?.owner.as_ref()?;
                self.newest(owner)?.parent.clone()
            }),
            _ => None,
        };
        if let Some(parent) = parent {
            self.unpublished_parents.insert(position.index, parent);
        }
        if let Request::Cancel { .. } | Request::CancelAll { .. } = request {
            self.open_cancels
                .insert(position.index, (position, request.clone()));
        }
        match request {
            Request::Cancel { task, skip, .. } => {
                self.open_cancel_targets
                    .insert(position.index, Some(task.clone()));
                if let Some(&index) = self.newest.get(task) {
                    let run = &mut self.runs[index];
                    run.cancel_requested.get_or_insert(position);
                    if *skip {
                        run.silent_cancel_requested.get_or_insert(position);
                    }
                }
            }
            Request::CancelAll { .. } => {
                self.open_cancel_targets.insert(position.index, None);
                for run in self.runs.iter_mut().filter(|run| run.is_open()) {
                    run.cancel_requested.get_or_insert(position);
                }
            }
            Request::Track { task, .. } => {
                self.aliases
                    .entry(task.to_string())
                    .or_insert_with(|| task.to_string());
                let first = self.tracked.insert(task.clone());
                if !first || self.newest.contains_key(task) {
                    self.reparenting.insert(position.index, task.clone());
                }
            }
            Request::Shutdown => {
                self.shutdown_requested.get_or_insert(position);
            }
            _ => {}
        }
    }

    fn reparented(&mut self, task: &TaskId, parent: &SessionId, position: LogPosition) {
        if let Some(&index) = self.newest.get(task) {
            let run = &mut self.runs[index];
            if !run.is_open() {
                self.reassigned.insert(task.clone(), parent.clone());
            } else if run.parent.as_ref() != Some(parent) {
                run.reparented = Some(position);
                let old = run.parent.replace(parent.clone());
                let parents = self.parents.entry(task.clone()).or_default();
                parents.insert(parent.clone());
                self.children_changed(old.as_ref());
                self.children_changed(Some(parent));
            }
        }
    }

    fn apply_change(&mut self, position: LogPosition, change: &greenroom::TaskChange) {
        let task = &change.task;
        self.delayed_publication |= change.at.as_millis() < position.at;
        let position = self.decision_position(position, change.at.as_millis());
        let name = (task.id.clone(), task.run);
        if let Some(parent) = &task.parent_session {
            let parents = self.parents.entry(task.id.clone()).or_default();
            parents.insert(parent.clone());
        }
        let new = !self.run_indices.contains_key(&name);
        if new {
            let origin = match (task.tracked, task.run) {
                (_, run) if run > Run::FIRST => Origin::Resume,
                (true, _) => Origin::Track,
                _ => Origin::Launch,
            };
            self.aliases
                .entry(task.id.to_string())
                .or_insert_with(|| task.description.to_string());
            self.run_indices.insert(name.clone(), self.runs.len());
            self.newest.insert(task.id.clone(), self.runs.len());
            self.reassigned.remove(&task.id);
            let meant = self
                .open_cancel_targets
                .values()
                .any(|of| of.as_ref().is_none_or(|of| *of == task.id));
            self.runs.push(RunFacts {
                task: task.id.clone(),
                run: task.run,
                origin,
                key: task.concurrency_group.clone(),
                counts: origin != Origin::Track || task.concurrency_key.is_some(),
                parent: task.parent_session.clone(),
                batch_parent: task.parent_session.clone(),
                session: task.session.clone(),
                accepted: position,
                requeued: None,
                started: None,
                created: false,
                prompted: None,
                running: None,
                ended: None,
                error: None,
                note: None,
                silent_cancel_requested: None,
                cancel_requested: meant.then_some(position),
                reparented: None,
                may_be_released_until: None,
                // Its acceptance was not published.
                actor_panicked: change.from.is_some() && change.to != TaskStatus::Pending,
            });
            self.children_changed(task.parent_session.as_ref());
        }
        if new {
            self.apply_open_cancels(&name);
        }
        let run = &mut self.runs[self.run_indices[&name]];
        run.parent.clone_from(&task.parent_session);
        if task.session.is_some() {
            run.session.clone_from(&task.session);
        }
        if change.to == TaskStatus::Pending && change.from == Some(TaskStatus::Running) {
            // The attempt ended, and the run waits for the next.
            (run.started, run.running) = (None, None);
            run.requeued = Some(position);
        }
        if change.to == TaskStatus::Running {
            run.running.get_or_insert(position);
            if self
                .process_crashed
                .is_some_and(|process_crashed| position < process_crashed)
            {
                // Its start was not published before the crash.
                run.started.get_or_insert(position);
            }
            if let Some(session) = &task.session {
                self.sessions.entry(session.clone()).or_default().owner = Some(task.id.clone());
            }
        }
        let (session, at) = (run.session.clone(), self.run_indices[&name]);
        if let Some(session) = session
            && self.open_children(&session).next().is_some()
        {
            self.runs[at].may_be_released_until = Some(OPEN_ENDED);
        }
        let run = &mut self.runs[at];
        if change.to.is_terminal() {
            run.ended = Some((position, change.to));
            run.error = task.error().map(str::to_owned);
            run.note = task.note().map(str::to_owned);
            self.children_changed(task.parent_session.as_ref());
        }
    }

    /// Returns the position at which a change was decided, which is earlier than its publication if the disk
    /// is slow.
    fn decision_position(&self, published: LogPosition, at: i64) -> LogPosition {
        if at >= published.at {
            return published;
        }
        let before = self.last_index_at.range(..at).next_back();
        let index = before.map_or(0, |(_, index)| *index + 1);
        LogPosition { index, at }
    }

    /// Applies the open cancels to a run whose acceptance is published only now.
    fn apply_open_cancels(&mut self, name: &(TaskId, Run)) {
        let run = &mut self.runs[self.run_indices[name]];
        for (position, request) in self.open_cancels.values() {
            match request {
                Request::Cancel { task, skip, .. } if *task == run.task => {
                    run.cancel_requested.get_or_insert(*position);
                    if *skip {
                        run.silent_cancel_requested.get_or_insert(*position);
                    }
                }
                Request::CancelAll { .. } => {
                    run.cancel_requested.get_or_insert(*position);
                }
                _ => {}
            }
        }
    }

    /// Marks the runs of a session: while it has open children, they may have released their slots.
    fn children_changed(&mut self, session: Option<&SessionId>) {
        let Some(session) = session else { return };
        for run in self
            .runs
            .iter_mut()
            .filter(|run| run.is_open() && run.session.as_ref() == Some(session))
        {
            run.may_be_released_until = Some(OPEN_ENDED);
        }
    }

    fn call_started(&mut self, position: LogPosition, call: &Call) {
        if let Call::Create { task, run, .. } | Call::Prompt { task, run, .. } = call
            && let Some(&index) = self.run_indices.get(&(task.clone(), *run))
        {
            self.runs[index].started.get_or_insert(position);
        }
        if let Call::Prompt { session, .. } = call {
            let known = self.sessions.entry(session.clone()).or_default();
            known.turn_reported = Some(position);
        }
    }

    fn call_applied(&mut self, position: LogPosition, number: u64) {
        match self.calls.get(&number) {
            Some(Call::Create { task, run, .. }) => {
                if let Some(&index) = self.run_indices.get(&(task.clone(), *run)) {
                    self.runs[index].created = true;
                }
            }
            Some(Call::Prompt { task, run, .. }) => {
                if let Some(&index) = self.run_indices.get(&(task.clone(), *run)) {
                    self.runs[index].prompted.get_or_insert(position);
                }
            }
            _ => {}
        }
    }

    /// Marks the sessions below a session that was deleted or whose deletion was delivered. They receive no messages any
    /// more, even if their tasks are reparented later.
    fn orphan_descendants(&mut self, position: LogPosition, deleted: &SessionId) {
        let below = |session: &&SessionId| self.lineage(session).contains(deleted);
        let below: Vec<SessionId> = self.sessions.keys().filter(below).cloned().collect();
        for session in below {
            self.sessions.entry(session).or_default().orphaned = Some(position);
        }
    }

    fn event_delivered(
        &mut self,
        position: LogPosition,
        session: &SessionId,
        kind: &str,
        sign: bool,
    ) {
        if kind == "session.deleted" {
            self.orphan_descendants(position, session);
        }
        let known = self.sessions.entry(session.clone()).or_default();
        match kind {
            "session.status busy" | "session.status retry" if known.owner.is_none() => {
                known.turn_reported.get_or_insert(position);
            }
            "session.status idle" | "session.idle" if known.owner.is_none() => {
                known.turn_reported = None;
            }
            _ => {}
        }
        if kind.starts_with("session.error") {
            self.sessions
                .entry(session.clone())
                .or_default()
                .error_delivered = Some(position);
        }
        if matches!(kind, "session.error aborted" | "message.updated aborted") {
            self.aborts.push(position);
            let known = self.sessions.entry(session.clone()).or_default();
            // The message repeats the error, unless the abort was too early for an error.
            let repeated = known.abort_delivered >= known.user_aborted.max(known.cut_off);
            if kind == "session.error aborted" || !repeated {
                known.abort_delivered = Some(position);
                known.reported_aborts.push(ReportedAbort {
                    at: position,
                    turn: known.turn_reported,
                });
            }
        }
        if sign && self.open_children(session).next().is_none() {
            for run in self
                .runs
                .iter_mut()
                .filter(|run| run.is_open() && run.session.as_ref() == Some(session))
            {
                if run.may_be_released_until == Some(OPEN_ENDED) {
                    run.may_be_released_until = Some(position);
                }
            }
        }
    }

    fn session_fact(&mut self, position: LogPosition, session: &SessionId, fact: Fact) {
        let known = self.sessions.entry(session.clone()).or_default();
        match fact {
            // A provider that makes the session wait may give up without an error.
            Fact::CutOff | Fact::StateLost | Fact::NotTakenUp | Fact::Retrying => {
                known.turn_lost = Some(position);
            }
            Fact::Failed | Fact::NotConfigured | Fact::UserAborted => {
                known.turn_failed = Some(position);
            }
            _ => {}
        }
        match fact {
            Fact::Busy | Fact::Idle => {
                known.busy = fact == Fact::Busy;
                known.since = Some(position);
            }
            Fact::Output => known.last_output = Some(position),
            Fact::Created | Fact::StepCompleted | Fact::AnswerCompleted => {}
            Fact::Todos(open) => known.todos = open,
            Fact::Deleted => {
                known.deleted = Some(position);
                self.deletions = true;
                self.orphan_descendants(position, session);
            }
            Fact::Reverted | Fact::Restored => known.reverted = fact == Fact::Reverted,
            Fact::RevertedDeleted => {}
            Fact::CutOff => {
                known.cut_off = Some(position);
                known.last_failure = Some((position, fact));
            }
            Fact::AbortLost => known.abort_lost = true,
            Fact::UserPrompted => known.user_prompted = Some(position),
            Fact::UserAborted => {
                known.user_aborted = Some(position);
                known.last_failure = Some((position, fact));
            }
            Fact::Failed
            | Fact::Aborted
            | Fact::Hung
            | Fact::Retrying
            | Fact::AwaitingInput
            | Fact::NotTakenUp
            | Fact::NotConfigured
            | Fact::StateLost => {
                known.last_failure = Some((position, fact));
            }
        }
    }
}
