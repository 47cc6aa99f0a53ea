//! Progress of long work on stderr: a bar on a terminal, one line per phase elsewhere.

use crate::output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use neap_registry::client;
use std::{
    collections::HashMap,
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The progress of one command.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    /// Begins to show progress.
    pub fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, is_terminal }
    }

    /// Names what is done now.
    pub fn phase(&self, text: &str) {
        if self.is_terminal {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            self.bar.set_length(0);
            self.bar.reset_elapsed();
            self.bar.set_message(text.to_owned());
        } else {
            output::say(text);
        }
    }

    /// Shows bytes of all transfers together.
    pub fn transfers(&self) -> client::Progress {
        let bar = self.bar.clone();
        let all = Arc::new(Mutex::new(HashMap::new()));
        if self.is_terminal {
            let style =
                ProgressStyle::with_template("{spinner} {msg} {bytes}/{total_bytes} ({bytes_per_sec})");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        Arc::new(move |transfer| {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(transfer.digest, (transfer.done_bytes, transfer.total_bytes));
            bar.set_length(all.values().map(|(_, total)| total).sum());
            bar.set_position(all.values().map(|(done, _)| done).sum());
        })
    }

    /// Takes the bar away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
