//! Messages on standard error: lines for people, or JSON lines.
//!
//! Standard output carries only data.

use crate::telemetry::escape;
use crate::telemetry::warnings::Keep;
use anstyle::{AnsiColor, Style};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The format of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// Sentences.
    Text,
    /// One JSON object per line.
    Json,
}

/// The target of questions to a person. They are no progress, so that `--quiet` shows them too.
pub const QUESTION: &str = "question";

/// The target of the one line about what a command made. It is printed by default, and bears no level.
pub const RESULT: &str = "result";

/// Starts sending messages of `level` and above, and questions, to standard error, and keeping warnings for reports.
pub fn install(level: Level, format: LogFormat) {
    let asked = level.max(Level::WARN);
    let made = if level == Level::ERROR { level } else { level.max(Level::INFO) };
    let shown = Targets::new().with_default(level).with_target(QUESTION, asked).with_target(RESULT, made);
    // The layer would print an error of standard error to standard error, and panic.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false);
    let kept = tracing_subscriber::registry().with(Keep.with_filter(LevelFilter::WARN));
    match format {
        // The stream removes colours where the output is not a terminal.
        LogFormat::Text => {
            kept.with(layer.with_writer(anstream::stderr).event_format(Plain).with_filter(shown)).init();
        }
        LogFormat::Json => {
            let layer = layer.with_writer(|| SafeJson).json().flatten_event(true);
            kept.with(layer.with_current_span(false).with_filter(shown)).init();
        }
    }
}

/// How a command words the messages of rooms that know no commands.
#[derive(Clone, Copy, Debug)]
pub struct Wording {
    /// A message or a hint; `None` if nothing of it is for this command.
    pub text: fn(&str) -> Option<String>,
    /// The same as part of a line that must stay whole.
    pub whole: fn(&str) -> String,
}

static WORDING: OnceLock<Wording> = OnceLock::new();

/// Words all messages of this process so from now on.
pub fn reword(wording: Wording) {
    // A process runs one command.
    let _ = WORDING.set(wording);
}

/// A message in the words of the command.
fn whole(text: &str) -> String {
    WORDING.get().map_or_else(|| text.to_owned(), |wording| (wording.whole)(text))
}

/// A text in the words of the command, if anything of it is left.
fn reworded(text: &str) -> Option<String> {
    WORDING.get().map_or_else(|| Some(text.to_owned()), |wording| (wording.text)(text))
}

/// Standard error for lines of JSON, each written at once.
struct SafeJson;

impl io::Write for SafeJson {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = whole(std::str::from_utf8(line).map_err(io::Error::other)?);
        let safe = escape::json(&text).into_owned();
        io::stderr().write_all(safe.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// One line per message: its level in the words of command-line tools, then the text.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (word, color) = match *event.metadata().level() {
            Level::ERROR => ("error", Some(AnsiColor::Red)),
            Level::WARN => ("warning", Some(AnsiColor::Yellow)),
            _ => ("info", None),
        };
        let style = color.map_or(Style::new(), |color| color.on_default().bold());
        let mut text = Text::default();
        event.record(&mut text);
        let message = reworded(&text.message).unwrap_or_else(|| whole(&text.message));
        if event.metadata().target() == RESULT {
            return writeln!(out, "{}", escape::line(&message));
        }
        writeln!(out, "{style}{word}{style:#}: {}", escape::line(&message))?;
        match text.hint.as_deref().and_then(reworded) {
            Some(hint) => {
                let style = AnsiColor::Cyan.on_default().bold();
                writeln!(out, "{style}hint{style:#}: {}", escape::line(&hint))
            }
            None => Ok(()),
        }
    }
}

/// The parts of a message that people read.
#[derive(Default)]
pub(super) struct Text {
    pub(super) message: String,
    hint: Option<String>,
}

impl tracing::field::Visit for Text {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "hint" {
            self.hint = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

/// Writes to standard error the text that the user asked for. It bypasses the log.
pub fn tell(text: &str) {
    use std::io::Write;
    // A closed standard error loses nothing.
    let _ = writeln!(anstream::stderr(), "{}", text.trim_end());
}

/// Whether an output has standard output for itself.
static IS_LEFT: AtomicBool = AtomicBool::new(false);

/// Leaves standard output to an output from now on: what is printed goes to standard error, unless `--quiet` keeps it
/// back.
pub fn leave_standard_output() {
    IS_LEFT.store(true, Ordering::Relaxed);
}

/// Writes text to standard output. A closed pipe is no error.
///
/// # Errors
///
/// When it cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    use std::io::Write;
    if IS_LEFT.load(Ordering::Relaxed) {
        text.lines().for_each(|line| tracing::info!(target: RESULT, "{line}"));
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why),
        _ => Ok(()),
    }
}

/// Prints what came of work that is done, whether the text can be printed or not.
pub fn print_account(text: &str) {
    if let Err(why) = print(text) {
        tracing::warn!("the work is done, and standard output cannot be written: {why}");
    }
}

/// Prints the path of an output that is written, unless standard output has an output.
pub fn print_path(path: &Path) {
    if IS_LEFT.load(Ordering::Relaxed) {
        return;
    }
    if let Err(why) = print(&format!("{}\n", path.display())) {
        tracing::warn!("{}: is written, and its path cannot be printed: {why}", path.display());
    }
}
