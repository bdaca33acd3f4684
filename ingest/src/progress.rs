use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How often a command without a terminal says where it is. Logs stay short, and nobody thinks that it hangs.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows how far a command has come: a bar on a terminal, a plain line every few seconds elsewhere.
///
/// Clones share one display, so any thread may report. Everything goes to standard error; standard output belongs to
/// results.
#[derive(Clone)]
pub struct Progress {
    shared: Arc<Shared>,
}

struct Shared {
    action: String,
    unit: &'static str,
    num_rows: AtomicU64,
    total_rows: AtomicU64,
    num_bytes: Arc<AtomicU64>,
    started: Instant,
    display: Display,
}

enum Display {
    Nothing,
    Bar(ProgressBar),
    Lines { last: Mutex<Instant> },
}

impl Progress {
    /// Shows nothing: for tests and for callers with a display of their own.
    pub fn silent() -> Self {
        Self::new("", "rows", Arc::default(), Display::Nothing)
    }

    /// Shows progress on standard error. `action` is what is being done, for example `packing`, and `unit` what is being
    /// counted, for example `rows`.
    pub fn console(action: &str, unit: &'static str) -> Self {
        let num_bytes = Arc::<AtomicU64>::default();
        let display = if std::io::stderr().is_terminal() {
            Display::Bar(bar(action, unit, Arc::clone(&num_bytes)))
        } else {
            Display::Lines { last: Mutex::new(Instant::now()) }
        };
        Self::new(action, unit, num_bytes, display)
    }

    fn new(action: &str, unit: &'static str, num_bytes: Arc<AtomicU64>, display: Display) -> Self {
        let shared = Shared {
            action: action.to_owned(),
            unit,
            num_rows: AtomicU64::new(0),
            total_rows: AtomicU64::new(0),
            num_bytes,
            started: Instant::now(),
            display,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Says how many rows there will be, once that is known. Without it there is no estimate of the time left.
    pub fn set_total(&self, num_rows: u64) {
        self.shared.total_rows.store(num_rows, Ordering::Relaxed);
        if let Display::Bar(bar) = &self.shared.display {
            bar.set_length(num_rows);
        }
    }

    /// Counts rows that are done, whatever their outcome, and the bytes they took.
    pub fn advance(&self, num_rows: u64, num_bytes: u64) {
        self.shared.num_rows.fetch_add(num_rows, Ordering::Relaxed);
        self.shared.num_bytes.fetch_add(num_bytes, Ordering::Relaxed);
        match &self.shared.display {
            Display::Nothing => {}
            Display::Bar(bar) => bar.inc(num_rows),
            Display::Lines { last } => {
                // A thread that finds the lock taken knows that another is printing just now.
                if let Ok(mut last) = last.try_lock()
                    && last.elapsed() >= LINE_INTERVAL
                {
                    *last = Instant::now();
                    self.print_line();
                }
            }
        }
    }

    /// Removes the bar, so that what is printed next starts on a clean line.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.shared.display {
            bar.finish_and_clear();
        }
    }

    fn print_line(&self) {
        // A closed standard error must not stop the work.
        let _ = writeln!(std::io::stderr(), "{self}");
    }
}

/// The plain line: `packing: 1200 of 4000 rows, 310 rows/s, 12.1 MB/s, 9 s left`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.shared.num_rows.load(Ordering::Relaxed);
        let total = self.shared.total_rows.load(Ordering::Relaxed);
        let seconds = self.shared.started.elapsed().as_secs_f64().max(1e-3);
        let rate = rows as f64 / seconds;
        let megabytes = self.shared.num_bytes.load(Ordering::Relaxed) as f64 / 1e6;
        write!(f, "{}: {rows}", self.shared.action)?;
        if total > 0 {
            write!(f, " of {total}")?;
        }
        let unit = self.shared.unit;
        write!(f, " {unit}, {rate:.0} {unit}/s, {:.1} MB/s", megabytes / seconds)?;
        if total > rows && rows > 0 {
            write!(f, ", {:.0} s left", (total - rows) as f64 / rate)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("state", &self.to_string()).finish()
    }
}

fn bar(action: &str, unit: &'static str, num_bytes: Arc<AtomicU64>) -> ProgressBar {
    let template = "{prefix} {wide_bar} {human_pos}/{human_len} {unit}  {rate}  {megabytes}  {eta} left";
    let style = ProgressStyle::with_template(template)
        .expect("the template is a constant and valid")
        // Below, the writer is the bar's own, which cannot fail.
        .with_key("unit", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(unit);
        })
        .with_key("rate", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{:.0} {unit}/s", state.per_sec());
        })
        .with_key("megabytes", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let seconds = state.elapsed().as_secs_f64().max(1e-3);
            let _ = write!(out, "{:.1} MB/s", num_bytes.load(Ordering::Relaxed) as f64 / 1e6 / seconds);
        });
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)).with_style(style);
    bar.set_prefix(action.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_line_counts_rows_from_all_clones() {
        let progress = Progress::silent();
        progress.set_total(10);
        progress.clone().advance(3, 1_000_000);
        progress.advance(1, 0);
        assert!(progress.to_string().contains(": 4 of 10 rows, "), "{progress}");
    }
}
