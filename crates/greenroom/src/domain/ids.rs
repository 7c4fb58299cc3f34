//! Ids of tasks, sessions and messages, concurrency keys, and models. Each is a newtype, so they cannot be mixed up.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Creates the id from a text.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// Returns the text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// A task: `bg_` and eight hex digits.
    TaskId
);
text_id!(
    /// A session of the agent server (`ses_…`).
    SessionId
);
text_id!(
    /// A message of a session (`msg_…`).
    MessageId
);
text_id!(
    /// A message from the system to a parent (`ntc_…`).
    NoticeId
);
text_id!(
    /// The key under which tasks queue: `provider/model` if a model is set, else the agent's name.
    ConcurrencyKey
);

impl TaskId {
    /// Creates an id from 32 random bits.
    pub fn from_random(bits: u32) -> Self {
        Self::new(format!("bg_{bits:08x}"))
    }
}

/// The number of a task's run: counts its launch and resumes, from 1. An answer to an earlier run never affects a later
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Run(pub u32);

impl Run {
    /// The run of a launch.
    pub const FIRST: Run = Run(1);

    /// Returns the next run.
    pub fn next(self) -> Run {
        Run(self.0.saturating_add(1))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A model of a provider, with an optional variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// The provider, for instance `anthropic`.
    #[serde(rename = "providerID")]
    pub provider_id: String,
    /// The id of the model at the provider.
    #[serde(rename = "modelID")]
    pub model_id: String,
    /// The variant, for instance a reasoning effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl ModelRef {
    /// Returns the concurrency key of launches with this model.
    pub fn key(&self) -> ConcurrencyKey {
        ConcurrencyKey::new(format!("{}/{}", self.provider_id, self.model_id))
    }
}
