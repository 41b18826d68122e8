//! Telling of a backend that blocks the runtime's threads: then no deadline of a trial comes either, and all would hang
//! without a word.
use std::{
    collections::BTreeSet,
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);

/// The trials that run.
#[derive(Debug)]
pub(crate) struct Watch {
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    running: BTreeSet<String>,
    /// When a trial began or ended last.
    moved: Instant,
}

impl Watch {
    /// Ends the process once no trial has begun or ended for so long, though some run.
    pub(crate) fn start(patience: Duration) -> Arc<Self> {
        let watch = Arc::new(Self::new(patience));
        let watched = Arc::clone(&watch);
        // Without the thread the kit works as well, but for this.
        let _thread = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            loop {
                thread::sleep(PERIOD);
                if let Some(stuck) = watched.stuck(Instant::now()) {
                    tell(&stuck);
                    process::exit(101);
                }
            }
        });
        watch
    }

    fn new(patience: Duration) -> Self {
        let state = State { running: BTreeSet::new(), moved: Instant::now() };
        Self { patience, state: Mutex::new(state) }
    }

    pub(crate) fn begins(&self, trial: String) {
        self.moved(|running| running.insert(trial));
    }

    pub(crate) fn ends(&self, trial: &str) {
        self.moved(|running| running.remove(trial));
    }

    fn moved(&self, change: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _was_there = change(&mut state.running);
        state.moved = Instant::now();
    }

    /// The trials that run, if nothing has moved for too long.
    fn stuck(&self, now: Instant) -> Option<Vec<String>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stuck =
            !state.running.is_empty() && now.saturating_duration_since(state.moved) > self.patience;
        is_stuck.then(|| state.running.iter().cloned().collect())
    }
}

#[expect(clippy::print_stderr, reason = "it is the last word of a test that cannot end")]
fn tell(stuck: &[String]) {
    eprintln!(
        "error: these trials do not end, and their deadlines do not come: {}\n\
         the backend blocks the threads of the runtime; wait on a thread of its own (tokio::task::spawn_blocking)",
        stuck.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_and_does_not_move_is_stuck() {
        let watch = Watch::new(Duration::from_secs(10));
        let later = || Instant::now() + Duration::from_secs(11);
        assert_eq!(watch.stuck(later()), None);
        watch.begins("a::b".to_owned());
        watch.begins("a::c".to_owned());
        watch.ends("a::c");
        assert_eq!(
            (watch.stuck(Instant::now()), watch.stuck(later())),
            (None, Some(vec!["a::b".to_owned()]))
        );
        watch.ends("a::b");
        assert_eq!(watch.stuck(later()), None);
    }
}
