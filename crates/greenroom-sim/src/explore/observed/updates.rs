//! How the ledger is kept: what each entry of the log says of runs and sessions.

use greenroom::domain::ids::{Run, SessionId, TaskId};
use greenroom::domain::task::{Task, TaskStatus};

use super::{Ledger, Mark, Origin, RunFacts, STILL};
use crate::explore::log::{Call, Entry, Fact, Order, What};

impl Ledger {
    /// Takes an entry of the log in.
    pub fn see(&mut self, place: usize, entry: &Entry) {
        let mark = Mark {
            place,
            at: entry.at,
        };
        self.moments.insert(entry.at, place);
        match &entry.what {
            What::Asked(order) => self.asked(mark, order),
            What::Told { asked, answer } => {
                self.cancels.remove(asked);
                self.depending.remove(asked);
                self.cancelling.remove(asked);
                if let (Some(Order::Track { task, parent, .. }), Ok(_)) =
                    (self.orders.get(asked).cloned(), answer)
                {
                    self.moving.remove(&task);
                    self.moved(&task, &parent, mark);
                }
            }
            What::Found(task) => self.found(mark, task),
            What::Closed(_) => self.closed = Some(mark),
            What::Changed(change) => self.changed(mark, change),
            What::Call { number, call } => {
                self.calls.insert(*number, call.clone());
                self.called(mark, call);
            }
            What::Effect(number) => self.effect(mark, *number),
            What::Returned { answer, .. } if answer != "ok" => self.trouble = Some(mark),
            What::Returned { .. } => {}
            What::Event {
                session,
                kind,
                sign,
            } => self.heard(mark, session, kind, *sign),
            What::Truth { session, fact } => self.truth(mark, session, *fact),
            What::Link(_) | What::Online(_) => self.trouble = Some(mark),
            What::Healed => self.healed = Some(mark),
            What::Crashed(_) => {
                (self.crashed, self.trouble) = (Some(mark), Some(mark));
                // Whoever was on the way to its session waits in line again.
                for run in self.runs.iter_mut().filter(|run| run.is_open()) {
                    if run.running.is_none() {
                        run.started = None;
                    }
                }
            }
            // Queues, slots, notifiers and the poller decide nothing of a run: what they die of must not be seen. A call of
            // theirs may have been cut off, as others are.
            What::Sabotaged(place)
                if !place.starts_with("registry") && !place.starts_with("task") =>
            {
                self.trouble = Some(mark);
            }
            What::Sabotaged(place) => {
                if place.starts_with("registry") {
                    self.registry_died = Some(mark);
                }
                self.sabotaged = true;
                self.runs
                    .iter_mut()
                    .filter(|run| run.is_open())
                    .for_each(|run| run.sabotaged = true);
            }
        }
    }

    /// What a reader was told of a task stands for the changes that were published to nobody.
    fn found(&mut self, mark: Mark, task: &Task) {
        for run in self
            .runs
            .iter_mut()
            .filter(|run| run.task == task.id && run.is_open())
        {
            if run.run < task.run || task.status().is_terminal() {
                run.ended = Some((mark, task.status()));
                run.error = task.error().map(str::to_owned);
                run.session.clone_from(&task.session);
            }
        }
    }

    fn asked(&mut self, mark: Mark, order: &Order) {
        self.orders.insert(mark.place, order.clone());
        let parent = match order {
            Order::Launch { parent, .. } => parent.clone(),
            Order::Track { parent, .. } => Some(parent.clone()),
            Order::Resume { session, parent } => parent.clone().or_else(|| {
                let owner = self.session(session)?.owner.as_ref()?;
                self.newest(owner)?.parent.clone()
            }),
            _ => None,
        };
        if let Some(parent) = parent {
            self.depending.insert(mark.place, parent);
        }
        if let Order::Cancel { .. } | Order::CancelAll { .. } = order {
            self.cancels.insert(mark.place, (mark, order.clone()));
        }
        match order {
            Order::Cancel { task, skip, .. } => {
                self.cancelling.insert(mark.place, Some(task.clone()));
                if let Some(&place) = self.newest.get(task) {
                    let run = &mut self.runs[place];
                    run.cancel_asked.get_or_insert(mark);
                    if *skip {
                        run.skip_asked.get_or_insert(mark);
                    }
                }
            }
            Order::CancelAll { .. } => {
                self.cancelling.insert(mark.place, None);
                for run in self.runs.iter_mut().filter(|run| run.is_open()) {
                    run.cancel_asked.get_or_insert(mark);
                }
            }
            Order::Track { task, .. } => {
                self.aliases
                    .entry(task.to_string())
                    .or_insert_with(|| task.to_string());
                if self.newest.contains_key(task) {
                    self.moving.insert(task.clone());
                }
            }
            Order::Shutdown => {
                self.closing.get_or_insert(mark);
            }
            _ => {}
        }
    }

    fn moved(&mut self, task: &TaskId, parent: &SessionId, mark: Mark) {
        if let Some(&place) = self.newest.get(task) {
            let run = &mut self.runs[place];
            if !run.is_open() {
                self.given.insert(task.clone(), parent.clone());
            } else if run.parent.as_ref() != Some(parent) {
                run.moved = Some(mark);
                let old = run.parent.replace(parent.clone());
                let parents = self.parents.entry(task.clone()).or_default();
                parents.insert(parent.clone());
                self.children_changed(old.as_ref());
                self.children_changed(Some(parent));
            }
        }
    }

    fn changed(&mut self, mark: Mark, change: &greenroom::TaskChange) {
        let task = &change.task;
        self.slow |= change.at.as_millis() < mark.at;
        let mark = self.decided(mark, change.at.as_millis());
        let name = (task.id.clone(), task.run);
        if let Some(parent) = &task.parent_session {
            let parents = self.parents.entry(task.id.clone()).or_default();
            parents.insert(parent.clone());
        }
        let new = !self.index.contains_key(&name);
        if new {
            let origin = match (task.tracked, task.run) {
                (_, run) if run > Run::FIRST => Origin::Resume,
                (true, _) => Origin::Track,
                _ => Origin::Launch,
            };
            self.aliases
                .entry(task.id.to_string())
                .or_insert_with(|| task.description.to_string());
            self.index.insert(name.clone(), self.runs.len());
            self.newest.insert(task.id.clone(), self.runs.len());
            self.given.remove(&task.id);
            let meant = self
                .cancelling
                .values()
                .any(|of| of.as_ref().is_none_or(|of| *of == task.id));
            self.runs.push(RunFacts {
                task: task.id.clone(),
                run: task.run,
                origin,
                key: task.concurrency_group.clone(),
                counts: origin != Origin::Track || task.concurrency_key.is_some(),
                parent: task.parent_session.clone(),
                joined: task.parent_session.clone(),
                session: task.session.clone(),
                accepted: mark,
                started: None,
                created: false,
                prompted: None,
                running: None,
                ended: None,
                error: None,
                note: None,
                skip_asked: None,
                cancel_asked: meant.then_some(mark),
                moved: None,
                lenient_until: None,
                // Its acceptance was published to nobody.
                sabotaged: change.from.is_some() && change.to != TaskStatus::Pending,
            });
            self.children_changed(task.parent_session.as_ref());
        }
        if new {
            self.crossed_by_cancels(&name);
        }
        let run = &mut self.runs[self.index[&name]];
        run.parent.clone_from(&task.parent_session);
        if task.session.is_some() {
            run.session.clone_from(&task.session);
        }
        if change.to == TaskStatus::Running {
            run.running.get_or_insert(mark);
            if self.crashed.is_some_and(|crashed| mark < crashed) {
                // Nobody was told before the process ended that it had started.
                run.started.get_or_insert(mark);
            }
            if let Some(session) = &task.session {
                self.sessions.entry(session.clone()).or_default().owner = Some(task.id.clone());
            }
        }
        let (session, at) = (run.session.clone(), self.index[&name]);
        if let Some(session) = session
            && self.open_below(&session).next().is_some()
        {
            self.runs[at].lenient_until = Some(STILL);
        }
        let run = &mut self.runs[at];
        if change.to.is_terminal() {
            run.ended = Some((mark, change.to));
            run.error = task.error().map(str::to_owned);
            run.note = task.note().map(str::to_owned);
            self.children_changed(task.parent_session.as_ref());
        }
    }

    /// When a change was decided that is told now: with a slow disk that was a while ago.
    fn decided(&self, told: Mark, at: i64) -> Mark {
        if at >= told.at {
            return told;
        }
        let before = self.moments.range(..at).next_back();
        let place = before.map_or(0, |(_, place)| *place + 1);
        Mark { place, at }
    }

    /// A run that is heard of only now may be what a cancel meant.
    fn crossed_by_cancels(&mut self, name: &(TaskId, Run)) {
        let run = &mut self.runs[self.index[name]];
        for (mark, order) in self.cancels.values() {
            match order {
                Order::Cancel { task, skip, .. } if *task == run.task => {
                    run.cancel_asked.get_or_insert(*mark);
                    if *skip {
                        run.skip_asked.get_or_insert(*mark);
                    }
                }
                Order::CancelAll { .. } => {
                    run.cancel_asked.get_or_insert(*mark);
                }
                _ => {}
            }
        }
    }

    /// The tasks of a session have changed: while any is open, its own run may have let go of its slot.
    fn children_changed(&mut self, session: Option<&SessionId>) {
        let Some(session) = session else { return };
        for run in self
            .runs
            .iter_mut()
            .filter(|run| run.is_open() && run.session.as_ref() == Some(session))
        {
            run.lenient_until = Some(STILL);
        }
    }

    fn called(&mut self, mark: Mark, call: &Call) {
        if let Call::Create { task, run, .. } | Call::Prompt { task, run, .. } = call
            && let Some(&place) = self.index.get(&(task.clone(), *run))
        {
            self.runs[place].started.get_or_insert(mark);
        }
    }

    fn effect(&mut self, mark: Mark, number: u64) {
        match self.calls.get(&number) {
            Some(Call::Create { task, run, .. }) => {
                if let Some(&place) = self.index.get(&(task.clone(), *run)) {
                    self.runs[place].created = true;
                }
            }
            Some(Call::Prompt { task, run, .. }) => {
                if let Some(&place) = self.index.get(&(task.clone(), *run)) {
                    self.runs[place].prompted.get_or_insert(mark);
                }
            }
            _ => {}
        }
    }

    fn heard(&mut self, mark: Mark, session: &SessionId, kind: &str, sign: bool) {
        if kind == "session.error aborted" {
            self.sessions.entry(session.clone()).or_default().stop_heard = Some(mark);
        }
        if sign && self.open_below(session).next().is_none() {
            for run in self
                .runs
                .iter_mut()
                .filter(|run| run.is_open() && run.session.as_ref() == Some(session))
            {
                if run.lenient_until == Some(STILL) {
                    run.lenient_until = Some(mark);
                }
            }
        }
    }

    fn truth(&mut self, mark: Mark, session: &SessionId, fact: Fact) {
        let known = self.sessions.entry(session.clone()).or_default();
        match fact {
            Fact::Busy | Fact::Idle => {
                known.busy = fact == Fact::Busy;
                known.since = Some(mark);
            }
            Fact::Said => known.said = Some(mark),
            Fact::Made | Fact::Answered => {}
            Fact::Todos(open) => known.todos = open,
            Fact::Deleted => {
                known.deleted = Some(mark);
                self.deletions = true;
            }
            Fact::AbortLost => known.lost_abort = true,
            Fact::Spoken => known.spoken = Some(mark),
            Fact::Stopped => {
                known.stopped = Some(mark);
                known.troubled = Some((mark, fact));
            }
            Fact::Failed
            | Fact::Aborted
            | Fact::Hangs
            | Fact::Retries
            | Fact::Asks
            | Fact::NotTakenUp
            | Fact::Forgotten => {
                known.troubled = Some((mark, fact));
            }
        }
    }
}
