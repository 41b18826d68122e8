//! Panics of trials as reasons with a place, instead of messages between the harness's lines.
use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::poll_fn,
    panic::{self, AssertUnwindSafe},
    pin::pin,
    sync::Once,
    task::Poll,
};

thread_local! {
    /// Whether this thread polls a trial.
    static IN_TRIAL: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of a trial on this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics of trials silent; all others go where they went before.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_TRIAL.get() {
                PLACE.set(info.location().map(ToString::to_string));
            } else {
                before(info);
            }
        }));
    });
}

/// Runs a trial and returns the message and the place of its panic.
pub(crate) async fn caught(trial: impl Future<Output = ()> + Send) -> Result<(), String> {
    let mut trial = pin!(trial);
    poll_fn(|context| {
        IN_TRIAL.set(true);
        let polled = panic::catch_unwind(AssertUnwindSafe(|| trial.as_mut().poll(context)));
        IN_TRIAL.set(false);
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(payload) => {
                let place = PLACE.take().unwrap_or_default();
                Poll::Ready(Err(format!("{}\n  at {place}", message(payload.as_ref()))))
            }
        }
    })
    .await
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}
