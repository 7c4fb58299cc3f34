//! A random scenario for every seed: a configuration, a temper of the server, and a workload of parents, children, keys and
//! everything that may be done to them. The same seed gives the same scenario, to the byte. Written here is only what is
//! done; what the server makes of it falls in the model.

use serde_json::{Map, Value, json};

use super::model::TurnKind;
use super::rng::Source;
use super::scenario::{Deed, Odds, Opencode, Profile, Scenario, Settings, Step};
use crate::story::CancelHow;

/// Parents that are nobody's children. The last is not there at all.
const PARENTS: [&str; 4] = ["ses_p1", "ses_p2", "ses_p3", "ses_ghost"];

/// Models, as `provider/model`; some share their provider's limit.
const MODELS: [(&str, &str); 4] = [
    ("acme", "big"),
    ("acme", "small"),
    ("acme", "tiny"),
    ("zeta", "one"),
];

/// Agents without a model queue under their own name; one is called like a provider, one does not exist.
const AGENTS: [&str; 5] = ["explore", "build", "acme", "build", "nobody"];

/// The scenario of a seed.
pub fn scenario(seed: u64, profile: Profile) -> Scenario {
    let mut source = Source::named(seed, "scenario");
    let mut odds = odds(&mut source);
    sabotage(&mut source, &mut odds);
    if profile == Profile::Crashes {
        odds.crash = *Source::named(seed, "crashes").one_of(&[20, 60, 200]);
        odds.sabotage = 0;
    }
    let config = settings(&mut source);
    let mut author = Author {
        source,
        steps: Vec::new(),
        tasks: 0,
        now: 0,
    };
    author.write();
    let healed_at = author.now + 2000;
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
        steps: author.steps,
        healed_at,
    }
}

fn odds(source: &mut Source) -> Odds {
    let mut odds = Odds {
        turns: turns(source),
        ..Odds::default()
    };
    odds.ambush = *source.one_of(&[0, 0, 5, 30]);
    // A third of the scenarios has true events, a third true calls: what goes wrong there is nobody's fault but ours.
    if source.chance(650) {
        odds.event_lost = *source.one_of(&[0, 20, 100, 300]);
        odds.event_doubled = *source.one_of(&[0, 30, 200]);
        odds.event_late = *source.one_of(&[0, 50, 300]);
        odds.event_late_ms = *source.one_of(&[20, 300, 4000]);
        odds.event_reordered = source.chance(400);
    }
    if source.chance(650) {
        let worst = *source.one_of(&[10, 40, 120]);
        let some = |source: &mut Source| if source.chance(500) { worst } else { 0 };
        odds.call_unreachable = some(source);
        odds.call_refused = some(source) / 2;
        odds.call_cut_before = some(source);
        odds.call_cut_after = some(source);
        odds.call_hangs = some(source) / 2;
        odds.call_hangs_after = some(source) / 2;
        odds.call_slow = some(source) * 3;
        odds.call_slow_ms = *source.one_of(&[50, 2000, 40_000]);
        odds.abort_lost = *source.one_of(&[0, 200, 600]);
    }
    odds
}

/// One of our own actors panics in every fourth scenario.
///
/// Where all of them may, little is left to be judged; so in half of those scenarios only one kind does, and often.
fn sabotage(source: &mut Source, odds: &mut Odds) {
    if !source.chance(250) {
        return;
    }
    odds.sabotage = *source.one_of(&[20, 100, 500]);
    if source.chance(500) {
        let kinds = [
            "slots",
            "queue",
            "notifier",
            "notifier: Answered",
            "notifier: ParentHappened",
            "poller",
            "task",
        ];
        odds.sabotage_of = (*source.one_of(&kinds)).to_owned();
        odds.sabotage *= 10;
        if odds.sabotage_of.contains(':') {
            odds.sabotage *= 10;
            // What was on its way matters only where it may not have arrived.
            odds.call_refused += *source.one_of(&[0, 40]);
            odds.call_cut_before += *source.one_of(&[20, 120]);
        }
    }
}

fn turns(source: &mut Source) -> Vec<u32> {
    let strange = *source.one_of(&[0, 5, 20]);
    TurnKind::ALL
        .iter()
        .map(|kind| match kind {
            TurnKind::Answer => 60,
            TurnKind::Tools => 40,
            TurnKind::Long => 20,
            TurnKind::Hangs | TurnKind::RetriesForEver | TurnKind::Repeats => strange / 3,
            _ => strange,
        })
        .collect()
}

fn settings(source: &mut Source) -> Settings {
    let mut settings = Settings {
        default_concurrency: Some(*source.one_of(&[1, 1, 2, 3, 5, 0])),
        stale_timeout_ms: Some(*source.one_of(&[10_000, 40_000, 180_000])),
        task_ttl_ms: Some(*source.one_of(&[60_000, 120_000, 600_000])),
        retry_timeout_ms: Some(*source.one_of(&[15_000, 60_000])),
        ask_timeout_ms: Some(*source.one_of(&[10_000, 60_000])),
        server_down_ms: Some(*source.one_of(&[20_000, 120_000, 600_000])),
        keep_ended_ms: Some(*source.one_of(&[1000, 30_000, 600_000])),
        max_depth: Some(*source.one_of(&[1, 2, 3, 5])),
        ..Settings::default()
    };
    if source.chance(300) {
        settings.max_concurrency = Some(*source.one_of(&[1, 2, 3]));
    }
    if source.chance(500) {
        settings
            .provider_concurrency
            .insert("acme".to_owned(), *source.one_of(&[0, 1, 2]));
    }
    if source.chance(300) {
        settings
            .model_concurrency
            .insert("acme/big".to_owned(), *source.one_of(&[0, 1, 2]));
    }
    if source.chance(150) {
        settings.queue_ttl_ms = Some(*source.one_of(&[5000, 60_000]));
    }
    if source.chance(300) {
        settings.debounce_ms = Some(*source.one_of(&[0, 1, 1000]));
    }
    if source.chance(200) {
        settings.wake_on_failure = Some(source.chance(500));
    }
    if source.chance(200) {
        settings.wait_for_busy_parent = Some(source.chance(500));
    }
    if source.chance(150) {
        settings.cancel_on_parent_abort = Some(true);
    }
    if source.chance(200) {
        settings.restart_attempts = Some(*source.one_of(&[0, 2]));
    }
    settings
}

/// Writes the steps.
struct Author {
    source: Source,
    steps: Vec<Step>,
    tasks: u32,
    now: u64,
}

impl Author {
    fn write(&mut self) {
        let length = *self.source.one_of(&[4, 10, 20, 40]);
        let pace = *self.source.one_of(&[50_u64, 1000, 6000]);
        let upheavals = self.source.chance(400);
        for _ in 0..length {
            // Several things at one instant are as likely as a while between them.
            if self.source.chance(700) {
                self.now += self.source.below(pace * 2);
            }
            let deed = self.deed(upheavals);
            self.steps.push(Step { at: self.now, deed });
        }
        if self.source.chance(120) {
            self.now += self.source.below(pace * 3);
            self.steps.push(Step {
                at: self.now,
                deed: Deed::Shutdown,
            });
            for _ in 0..self.source.below(4) {
                self.now += self.source.below(3000);
                let deed = self.deed(false);
                self.steps.push(Step { at: self.now, deed });
            }
        }
    }

    fn deed(&mut self, upheavals: bool) -> Deed {
        if self.tasks == 0 {
            return self.launch();
        }
        let rare = u32::from(upheavals) * 12;
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
        match self.source.weighed(&weights) {
            0 => self.launch(),
            1 => Deed::Cancel {
                task: self.task(),
                options: self.how(),
            },
            2 => Deed::CancelPending { task: self.task() },
            3 => Deed::CancelAll {
                session: self.source.chance(800).then(|| self.any_session()),
            },
            4 => Deed::Resume {
                session: self.child(),
                prompt: "go on".to_owned(),
                parent_session: self.source.chance(400).then(|| self.parent()),
            },
            5 => Deed::Send {
                task: self.task(),
                prompt: "and this".to_owned(),
            },
            6 => self.track(),
            7 => self.set_limits(),
            8 => Deed::UserMessage {
                session: self.any_session(),
            },
            9 => Deed::UserAbort {
                session: self.any_session(),
            },
            10 => Deed::UserAnswer {
                session: self.child(),
            },
            11 => Deed::Delete {
                session: self.any_session(),
            },
            12 => Deed::Outage { ms: self.span() },
            13 => Deed::Restart { ms: self.span() },
            _ => Deed::BreakLink { ms: self.span() },
        }
    }

    fn launch(&mut self) -> Deed {
        let mut input = Map::new();
        input.insert(
            "agent".to_owned(),
            json!(self.source.one_of(
                &AGENTS[..if self.source.clone().chance(100) {
                    5
                } else {
                    4
                }]
            )),
        );
        if self.source.chance(500) {
            let (provider, model) = self.source.one_of(&MODELS);
            input.insert(
                "model".to_owned(),
                json!({"providerID": provider, "modelID": model}),
            );
        }
        if self.source.chance(950) {
            input.insert("parentSessionID".to_owned(), Value::from(self.parent()));
        }
        self.tasks += 1;
        Deed::Launch {
            r#as: format!("t{}", self.tasks),
            input,
        }
    }

    fn how(&mut self) -> CancelHow {
        CancelHow {
            skip_notification: self.source.chance(250).then_some(true),
            abort_session: self.source.chance(100).then_some(false),
            ..CancelHow::default()
        }
    }

    fn track(&mut self) -> Deed {
        let known = self.source.chance(300);
        let task = if known {
            self.task()
        } else {
            self.tasks += 1;
            format!("t{}", self.tasks)
        };
        // A session started elsewhere, or one that another task has.
        let session = if self.source.chance(700) {
            format!("ses_e{}", self.source.below(3))
        } else {
            self.child()
        };
        Deed::Track {
            task,
            session,
            parent_session: self.parent(),
            agent: self.source.chance(500).then(|| "explore".to_owned()),
            concurrency_key: self
                .source
                .chance(600)
                .then(|| (*self.source.one_of(&["explore", "acme/big", "zeta/one"])).to_owned()),
        }
    }

    fn set_limits(&mut self) -> Deed {
        let number = *self.source.one_of(&[0, 1, 2, 4]);
        let limits = match self.source.below(5) {
            0 => json!({"max": number}),
            1 => json!({"providers": {"acme": number}}),
            2 => json!({"models": {"acme/big": number}}),
            3 => json!({"models": {"explore": number, "acme/small": null}}),
            _ => json!({"default": number}),
        };
        Deed::SetLimits {
            limits: limits.as_object().cloned().unwrap_or_default(),
        }
    }

    fn task(&mut self) -> String {
        // The newest are where something is going on.
        let newest = self.source.chance(700);
        let back = self
            .source
            .below(if newest { 4 } else { u64::from(self.tasks) });
        format!("t{}", u64::from(self.tasks).saturating_sub(back).max(1))
    }

    fn child(&mut self) -> String {
        format!("${}", self.task())
    }

    fn parent(&mut self) -> String {
        if self.tasks > 0 && self.source.chance(250) {
            return self.child();
        }
        let known = if self.source.chance(30) { 4 } else { 3 };
        (*self.source.one_of(&PARENTS[..known])).to_owned()
    }

    fn any_session(&mut self) -> String {
        if self.source.chance(500) {
            self.child()
        } else {
            self.parent()
        }
    }

    fn span(&mut self) -> u64 {
        *self.source.one_of(&[500, 4000, 15_000, 60_000])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_scenario() {
        let text = |seed| serde_json::to_string(&scenario(seed, Profile::Default)).unwrap();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
        let read: Scenario = serde_json::from_str(&text(7)).unwrap();
        assert_eq!(read, scenario(7, Profile::Default));
    }
}
