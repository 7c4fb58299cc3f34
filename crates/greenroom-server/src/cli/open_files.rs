//! The limit of open files of a service: each connection needs one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::failure::{FAILED, Failure};

/// The smallest limit with which a service works.
const MIN_OPEN_FILES: u64 = 64;

/// Raises the soft limit of open files to the hard limit.
///
/// # Errors
/// Fails if the limit is too low for a service.
pub(super) fn raise_limit() -> Result<(), Failure> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit of open files cannot be raised");
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(soft, |(soft, _)| soft);
    if limit >= MIN_OPEN_FILES {
        return Ok(());
    }
    Err(Failure::new(
        FAILED,
        format!("the limit of open files is {limit}; a service needs at least {MIN_OPEN_FILES}"),
        "raise the hard limit, for instance with `ulimit -n 1024` (systemd: LimitNOFILE=1024)",
    ))
}
