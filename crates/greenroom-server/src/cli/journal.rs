//! `greenroom journal`: works on the journal file without the service. Reads work while a service uses the file;
//! commands that change it fail with the process id of the user.

use std::fs::OpenOptions;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use greenroom_sqlite::OpenError;
use greenroom_sqlite::maintenance::{self, ExportError, Purge, Stats};
use serde_json::json;

use super::args::admin::{JournalArgs, JournalCommand, JournalFile, PurgeArgs};
use super::failure::{FAILED, Failure, USAGE};
use super::run::json_text;
use super::terminal::{print_err, print_out};
use crate::config::{Environment, Sources, load};

/// Runs the command.
pub fn journal(args: JournalArgs) -> Result<(), Failure> {
    match args.command {
        JournalCommand::Stats { file, json } => {
            let stats = maintenance::stats(&path(&file)?)?;
            if json {
                let value = serde_json::to_value(&stats).unwrap_or_default();
                print_out(&json_text(&value)?);
            } else {
                print_out(&text(&stats));
            }
            Ok(())
        }
        JournalCommand::Vacuum { file, json } => {
            let (before, after) = maintenance::vacuum(&path(&file)?)?;
            if json {
                print_out(&json_text(
                    &json!({ "bytesBefore": before, "bytesAfter": after }),
                )?);
            } else {
                print_out(&format!("{} before, {} now\n", size(before), size(after)));
            }
            Ok(())
        }
        JournalCommand::Export { to, file } => export(&path(&file)?, to.as_deref()),
        JournalCommand::Purge(args) => purge(&args),
    }
}

/// Returns the given file, else the configured one.
fn path(file: &JournalFile) -> Result<PathBuf, Failure> {
    let environment = Environment::from_process();
    if let Some(journal) = &file.journal {
        return Ok(environment.path(journal));
    }
    let sources = Sources {
        file: file.config.clone(),
        ..Sources::default()
    };
    let settings = load(&sources, &environment)?.settings;
    settings.journal.ok_or_else(|| {
        Failure::new(
            USAGE,
            "no journal is configured",
            "name the file with --journal",
        )
    })
}

fn export(path: &Path, to: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: ExportError| match error {
        ExportError::Journal(error) => Failure::from(error),
        ExportError::Out(error) => Failure::new(
            FAILED,
            format!("the export cannot be written: {error}"),
            "make room, or name another file",
        ),
    };
    let Some(to) = to else {
        let mut stdout = BufWriter::new(std::io::stdout().lock());
        let written = maintenance::export(path, &mut stdout).and_then(|count| {
            stdout.flush()?;
            Ok(count)
        });
        return match written {
            // A closed pipe (`| head`) is not an error.
            Err(ExportError::Out(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Ok(())
            }
            written => written.map(|_| ()).map_err(failed),
        };
    };
    // The export contains prompts: readable only by its owner, and never overwrites a file.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|error| {
            Failure::new(
                FAILED,
                format!("{} cannot be made: {error}", to.display()),
                "name a file that is not there yet",
            )
        })?;
    let mut file = BufWriter::new(file);
    let count = maintenance::export(path, &mut file).map_err(failed)?;
    file.flush().map_err(|error| failed(error.into()))?;
    print_err(&format!("{count} tasks written to {}", to.display()));
    Ok(())
}

fn purge(args: &PurgeArgs) -> Result<(), Failure> {
    let path = path(&args.file)?;
    let (what, which) = match args.older_than {
        Some(age) => (
            Purge::OlderThan(age),
            format!(
                "tasks that left the service's memory more than {} ago",
                humantime::format_duration(age)
            ),
        ),
        None => (
            Purge::AllEnded,
            "all tasks that have ended, except where a parent waits for a task".to_owned(),
        ),
    };
    if !args.yes && !confirm(&which, &path)? {
        print_err("nothing was removed");
        return Ok(());
    }
    let count = maintenance::purge(&path, what)?;
    if args.json {
        print_out(&json_text(&json!({ "purged": count }))?);
        return Ok(());
    }
    print_out(&format!("{count} tasks removed\n"));
    if count > 0 {
        print_err("`greenroom journal vacuum` makes the file smaller");
    }
    Ok(())
}

/// Asks for confirmation on a terminal.
fn confirm(which: &str, path: &Path) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            USAGE,
            "this cannot be undone, and there is no terminal to confirm it",
            "pass --yes",
        ));
    }
    // With a closed stderr the answer is no.
    let _ = write!(
        std::io::stderr(),
        "remove {which} from {}? [y/N] ",
        path.display()
    );
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    let answer = answer.trim().to_lowercase();
    Ok(read.is_ok() && (answer == "y" || answer == "yes"))
}

/// Returns the statistics, one per line.
pub fn text(stats: &Stats) -> String {
    let mut tasks = format!("{} open, {} ended", stats.open, stats.ended);
    if stats.left > 0 {
        tasks.push_str(&format!(" ({} of them left memory", stats.left));
        if let Some(oldest) = stats.oldest_left {
            tasks.push_str(&format!(", the oldest at {oldest}"));
        }
        tasks.push(')');
    }
    let used = match (stats.in_use, stats.used_by) {
        (true, Some(pid)) => format!("by the process {pid}"),
        (true, None) => "by another process".to_owned(),
        (false, _) => "by no process".to_owned(),
    };
    format!(
        "file     {} (version {})\nin use   {used}\nsize     {}, {} of it free\ntasks    {tasks}\nparents  {} owed a \
         message or with a task open\nchanges  {} can be read again\nkeys     {}\n",
        stats.path.display(),
        stats.version,
        size(stats.bytes),
        size(stats.free_bytes),
        stats.waiting_parents,
        stats.changes,
        stats.keys,
    )
}

/// Formats a size in bytes.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..MIB => format!("{} KiB", bytes / 1024),
        _ => format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::new(FAILED, error.to_string(), error.hint())
    }
}
