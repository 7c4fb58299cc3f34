//! Generates a random scenario for each seed: a configuration, a profile of the server's faults, and a
//! workload of parents, children and keys with all kinds of requests. The same seed produces the same
//! scenario, byte for byte. The model decides how the server reacts.

use serde_json::{Map, Value, json};

use super::model::TurnKind;
use super::rng::Rng;
use super::scenario::{Action, Odds, Opencode, Profile, Scenario, Settings, Step};
use crate::story::CancelOverrides;

/// Root parents. The last one does not exist on the server.
const PARENTS: [&str; 4] = ["ses_p1", "ses_p2", "ses_p3", "ses_ghost"];

/// Models, as `provider/model`; some share the limit of their provider.
const MODELS: [(&str, &str); 4] = [
    ("acme", "big"),
    ("acme", "small"),
    ("acme", "tiny"),
    ("zeta", "one"),
];

/// Agents without a model queue under their own name. One has the name of a provider, one does not exist.
const AGENTS: [&str; 5] = ["explore", "build", "acme", "build", "nobody"];

/// Returns the scenario of a seed.
pub fn scenario(seed: u64, profile: Profile) -> Scenario {
    let mut rng = Rng::named(seed, "scenario");
    let mut odds = odds(&mut rng);
    failpoints(&mut rng, &mut odds);
    let mut ordinary = profile.is_ordinary().then(|| Rng::named(seed, "ordinary"));
    if let Some(rng) = &mut ordinary {
        ordinary_odds(rng, &mut odds);
        // A generator of its own leaves the other decisions of a seed as they are.
        let mut rng = Rng::named(seed, "ordinary: storage");
        odds.notice_stored_after_wait = *rng.one_of(&[0, 0, 0, 200]);
    }
    if profile.crashes() {
        odds.crash = *Rng::named(seed, "crashes").one_of(&[20, 60, 200]);
        odds.failpoint = 0;
    }
    let config = settings(&mut rng);
    let mut generator = StepGenerator {
        rng,
        steps: Vec::new(),
        tasks: 0,
        now: 0,
    };
    generator.generate_steps();
    let mut healed_at = generator.now + 2000;
    if let Some(rng) = &mut ordinary {
        ordinary_steps(rng, &mut generator);
        let mut second = Rng::named(seed, "ordinary: second process");
        if second.chance(300) {
            add_second_process(&mut second, &mut generator.steps);
        }
        let mut absence = Rng::named(seed, "ordinary: absence");
        if absence.chance(150) {
            healed_at = healed_at.max(add_absence(&mut absence, &mut generator));
        }
        if Rng::named(seed, "ordinary: losses").chance(300) {
            make_losses_permanent(&mut generator.steps);
        }
    }
    Scenario {
        name: format!("seed {seed}"),
        about: String::new(),
        profile,
        config,
        opencode: Opencode {
            seed,
            odds,
            decisions: None,
        },
        steps: generator.steps,
        healed_at,
    }
}

fn odds(rng: &mut Rng) -> Odds {
    let mut odds = Odds {
        turns: turns(rng),
        ..Odds::default()
    };
    odds.race_injection = *rng.one_of(&[0, 0, 5, 30]);
    // A third of the scenarios has reliable events, and a third reliable calls; a failure there is a bug of
    // the system.
    if rng.chance(650) {
        odds.event_lost = *rng.one_of(&[0, 20, 100, 300]);
        odds.event_doubled = *rng.one_of(&[0, 30, 200]);
        odds.event_late = *rng.one_of(&[0, 50, 300]);
        odds.event_late_ms = *rng.one_of(&[20, 300, 4000]);
        odds.event_reordered = rng.chance(400);
    }
    if rng.chance(650) {
        let worst = *rng.one_of(&[10, 40, 120]);
        let some = |rng: &mut Rng| if rng.chance(500) { worst } else { 0 };
        odds.call_unreachable = some(rng);
        odds.call_refused = some(rng) / 2;
        odds.call_cut_before = some(rng);
        odds.call_cut_after = some(rng);
        odds.call_hangs = some(rng) / 2;
        odds.call_hangs_after = some(rng) / 2;
        odds.call_slow = some(rng) * 3;
        odds.call_slow_ms = *rng.one_of(&[50, 2000, 40_000]);
        odds.abort_lost = *rng.one_of(&[0, 200, 600]);
    }
    odds
}

/// Draws the odds of the ordinary life of opencode. Half of the scenarios have no other faults, so that a violation shows
/// its cause.
fn ordinary_odds(rng: &mut Rng, odds: &mut Odds) {
    odds.failpoint = 0;
    odds.failpoint_prefix.clear();
    if rng.chance(500) {
        *odds = Odds {
            turns: std::mem::take(&mut odds.turns),
            ..Odds::default()
        };
    }
    odds.exact_effects = true;
    odds.notice_not_stored = *rng.one_of(&[0, 0, 50, 300]);
    odds.notice_stored_late = *rng.one_of(&[0, 0, 100, 400]);
    odds.notice_cut_off = *rng.one_of(&[0, 0, 100, 400]);
}

/// Adds steps of the ordinary life of opencode. The other steps stay as they are.
fn ordinary_steps(rng: &mut Rng, generator: &mut StepGenerator) {
    let kinds = [40, 30, 10, 10, 25, 15, 5];
    for _ in 0..rng.between(1, 4) {
        let at = rng.below(generator.now + 2000);
        let session = |rng: &mut Rng| {
            if rng.chance(700) {
                (*rng.one_of(&PARENTS[..3])).to_owned()
            } else {
                format!("$t{}", 1 + rng.below(u64::from(generator.tasks.max(1))))
            }
        };
        let action = match rng.weighted_index(&kinds) {
            0 => Action::Dispose,
            1 => Action::EndProcess {
                ms: *rng.one_of(&[500, 4000, 15_000, 60_000]),
            },
            2 => Action::LoseAgent {
                agent: (*rng.one_of(&AGENTS[..3])).to_owned(),
                permanent: false,
            },
            3 => {
                let (provider, model) = rng.one_of(&MODELS);
                Action::LoseModel {
                    model: format!("{provider}/{model}"),
                    permanent: false,
                }
            }
            4 => Action::Revert {
                session: session(rng),
            },
            5 => Action::Unrevert {
                session: session(rng),
            },
            _ => Action::Fork {
                session: session(rng),
            },
        };
        generator.steps.push(Step { at, action });
    }
    generator.steps.sort_by_key(|step| step.at);
}

/// Ends a second process of the folder around each abort by a user.
fn add_second_process(rng: &mut Rng, steps: &mut Vec<Step>) {
    let stops = steps.iter().filter_map(|step| match step.action {
        Action::UserAbort { .. } => Some(step.at),
        _ => None,
    });
    let ends: Vec<Step> = stops
        .map(|at| Step {
            at: (at + rng.below(6000)).saturating_sub(4000),
            action: Action::EndSecondProcess,
        })
        .collect();
    steps.extend(ends);
    steps.sort_by_key(|step| step.at);
}

/// Kills the server for a long time. Returns when the next one serves.
fn add_absence(rng: &mut Rng, generator: &mut StepGenerator) -> u64 {
    let at = rng.below(generator.now + 2000);
    let ms = *rng.one_of(&[60_000, 900_000, 3_600_000]);
    let action = Action::Restart { ms };
    generator.steps.push(Step { at, action });
    generator.steps.sort_by_key(|step| step.at);
    at + ms + 2000
}

fn make_losses_permanent(steps: &mut [Step]) {
    for step in steps {
        if let Action::LoseAgent { permanent, .. } | Action::LoseModel { permanent, .. } =
            &mut step.action
        {
            *permanent = true;
        }
    }
}

/// Makes actors panic in every fourth scenario.
///
/// With panics in all actors few promises can be checked, so half of those scenarios restrict them to one
/// kind of actor, with a higher rate.
fn failpoints(rng: &mut Rng, odds: &mut Odds) {
    if !rng.chance(250) {
        return;
    }
    odds.failpoint = *rng.one_of(&[20, 100, 500]);
    if rng.chance(500) {
        let kinds = [
            "slots",
            "queue",
            "notifier",
            "notifier: Answered",
            "notifier: ParentHappened",
            "poller",
            "task",
        ];
        odds.failpoint_prefix = (*rng.one_of(&kinds)).to_owned();
        odds.failpoint *= 10;
        if odds.failpoint_prefix.contains(':') {
            odds.failpoint *= 10;
            // A message in flight matters only if calls can be lost.
            odds.call_refused += *rng.one_of(&[0, 40]);
            odds.call_cut_before += *rng.one_of(&[20, 120]);
        }
    }
}

fn turns(rng: &mut Rng) -> Vec<u32> {
    let unusual = *rng.one_of(&[0, 5, 20]);
    TurnKind::ALL
        .iter()
        .map(|kind| match kind {
            TurnKind::Answer => 60,
            TurnKind::Tools => 40,
            TurnKind::Long => 20,
            TurnKind::Hangs | TurnKind::RetriesForever | TurnKind::Repeats => unusual / 3,
            _ => unusual,
        })
        .collect()
}

fn settings(rng: &mut Rng) -> Settings {
    let mut settings = Settings {
        default_concurrency: Some(*rng.one_of(&[1, 1, 2, 3, 5, 0])),
        stale_timeout_ms: Some(*rng.one_of(&[10_000, 40_000, 180_000])),
        task_ttl_ms: Some(*rng.one_of(&[60_000, 120_000, 600_000])),
        retry_timeout_ms: Some(*rng.one_of(&[15_000, 60_000])),
        ask_timeout_ms: Some(*rng.one_of(&[10_000, 60_000])),
        server_down_ms: Some(*rng.one_of(&[20_000, 120_000, 600_000])),
        keep_ended_ms: Some(*rng.one_of(&[1000, 30_000, 600_000])),
        max_depth: Some(*rng.one_of(&[1, 2, 3, 5])),
        ..Settings::default()
    };
    if rng.chance(300) {
        settings.max_concurrency = Some(*rng.one_of(&[1, 2, 3]));
    }
    if rng.chance(500) {
        settings
            .provider_concurrency
            .insert("acme".to_owned(), *rng.one_of(&[0, 1, 2]));
    }
    if rng.chance(300) {
        settings
            .model_concurrency
            .insert("acme/big".to_owned(), *rng.one_of(&[0, 1, 2]));
    }
    if rng.chance(150) {
        settings.queue_ttl_ms = Some(*rng.one_of(&[5000, 60_000]));
    }
    if rng.chance(300) {
        settings.debounce_ms = Some(*rng.one_of(&[0, 1, 1000]));
    }
    if rng.chance(200) {
        settings.wake_on_failure = Some(rng.chance(500));
    }
    if rng.chance(200) {
        settings.wait_for_busy_parent = Some(rng.chance(500));
    }
    if rng.chance(150) {
        settings.cancel_on_parent_abort = Some(true);
    }
    if rng.chance(200) {
        settings.restart_attempts = Some(*rng.one_of(&[0, 2]));
    }
    settings
}

/// Generates the steps.
struct StepGenerator {
    rng: Rng,
    steps: Vec<Step>,
    tasks: u32,
    now: u64,
}

impl StepGenerator {
    fn generate_steps(&mut self) {
        let length = *self.rng.one_of(&[4, 10, 20, 40]);
        let pace = *self.rng.one_of(&[50_u64, 1000, 6000]);
        let outages = self.rng.chance(400);
        for _ in 0..length {
            // Steps at the same instant are as likely as steps with a pause between them.
            if self.rng.chance(700) {
                self.now += self.rng.below(pace * 2);
            }
            let action = self.action(outages);
            self.steps.push(Step {
                at: self.now,
                action,
            });
        }
        if self.rng.chance(120) {
            self.now += self.rng.below(pace * 3);
            self.steps.push(Step {
                at: self.now,
                action: Action::Shutdown,
            });
            for _ in 0..self.rng.below(4) {
                self.now += self.rng.below(3000);
                let action = self.action(false);
                self.steps.push(Step {
                    at: self.now,
                    action,
                });
            }
        }
    }

    fn action(&mut self, outages: bool) -> Action {
        if self.tasks == 0 {
            return self.launch();
        }
        let rare = u32::from(outages) * 12;
        let weights = [
            160,
            30,
            8,
            5,
            40,
            20,
            22,
            14,
            30,
            14,
            8,
            6,
            rare,
            rare / 2,
            rare,
        ];
        match self.rng.weighted_index(&weights) {
            0 => self.launch(),
            1 => Action::Cancel {
                task: self.task(),
                options: self.cancel_options(),
            },
            2 => Action::CancelPending { task: self.task() },
            3 => Action::CancelAll {
                session: self.rng.chance(800).then(|| self.any_session()),
            },
            4 => Action::Resume {
                session: self.child(),
                prompt: "go on".to_owned(),
                parent_session: self.rng.chance(400).then(|| self.parent()),
            },
            5 => Action::Send {
                task: self.task(),
                prompt: "and this".to_owned(),
            },
            6 => self.track(),
            7 => self.set_limits(),
            8 => Action::UserMessage {
                session: self.any_session(),
            },
            9 => Action::UserAbort {
                session: self.any_session(),
            },
            10 => Action::UserAnswer {
                session: self.child(),
            },
            11 => Action::Delete {
                session: self.any_session(),
            },
            12 => Action::Outage {
                ms: self.outage_ms(),
            },
            13 => Action::Restart {
                ms: self.outage_ms(),
            },
            _ => Action::BreakLink {
                ms: self.outage_ms(),
            },
        }
    }

    fn launch(&mut self) -> Action {
        let mut input = Map::new();
        input.insert(
            "agent".to_owned(),
            json!(
                self.rng
                    .one_of(&AGENTS[..if self.rng.clone().chance(100) { 5 } else { 4 }])
            ),
        );
        if self.rng.chance(500) {
            let (provider, model) = self.rng.one_of(&MODELS);
            input.insert(
                "model".to_owned(),
                json!({"providerID": provider, "modelID": model}),
            );
        }
        if self.rng.chance(950) {
            input.insert("parentSessionID".to_owned(), Value::from(self.parent()));
        }
        self.tasks += 1;
        Action::Launch {
            r#as: format!("t{}", self.tasks),
            input,
        }
    }

    fn cancel_options(&mut self) -> CancelOverrides {
        CancelOverrides {
            skip_notification: self.rng.chance(250).then_some(true),
            abort_session: self.rng.chance(100).then_some(false),
            ..CancelOverrides::default()
        }
    }

    fn track(&mut self) -> Action {
        let known = self.rng.chance(300);
        let task = if known {
            self.task()
        } else {
            self.tasks += 1;
            format!("t{}", self.tasks)
        };
        // A session started elsewhere, or the session of another task.
        let session = if self.rng.chance(700) {
            format!("ses_e{}", self.rng.below(3))
        } else {
            self.child()
        };
        Action::Track {
            task,
            session,
            parent_session: self.parent(),
            agent: self.rng.chance(500).then(|| "explore".to_owned()),
            concurrency_key: self
                .rng
                .chance(600)
                .then(|| (*self.rng.one_of(&["explore", "acme/big", "zeta/one"])).to_owned()),
        }
    }

    fn set_limits(&mut self) -> Action {
        let number = *self.rng.one_of(&[0, 1, 2, 4]);
        let limits = match self.rng.below(5) {
            0 => json!({"max": number}),
            1 => json!({"providers": {"acme": number}}),
            2 => json!({"models": {"acme/big": number}}),
            3 => json!({"models": {"explore": number, "acme/small": null}}),
            _ => json!({"default": number}),
        };
        Action::SetLimits {
            limits: limits.as_object().cloned().unwrap_or_default(),
        }
    }

    fn task(&mut self) -> String {
        // The newest tasks are most likely to be active.
        let newest = self.rng.chance(700);
        let back = self
            .rng
            .below(if newest { 4 } else { u64::from(self.tasks) });
        format!("t{}", u64::from(self.tasks).saturating_sub(back).max(1))
    }

    fn child(&mut self) -> String {
        format!("${}", self.task())
    }

    fn parent(&mut self) -> String {
        if self.tasks > 0 && self.rng.chance(250) {
            return self.child();
        }
        let known = if self.rng.chance(30) { 4 } else { 3 };
        (*self.rng.one_of(&PARENTS[..known])).to_owned()
    }

    fn any_session(&mut self) -> String {
        if self.rng.chance(500) {
            self.child()
        } else {
            self.parent()
        }
    }

    fn outage_ms(&mut self) -> u64 {
        *self.rng.one_of(&[500, 4000, 15_000, 60_000])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_scenario() {
        let text = |seed| serde_json::to_string(&scenario(seed, Profile::Default)).unwrap();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
        let read: Scenario = serde_json::from_str(&text(7)).unwrap();
        assert_eq!(read, scenario(7, Profile::Default));
    }
}
