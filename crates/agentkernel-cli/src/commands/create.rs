//! `create`: a sandbox that stays.
use std::{
    io::{self, IsTerminal},
    pin::pin,
};

use agentkernel_core::{
    Backend, Error, ErrorKind, ImageRef, ImageStore, Lifetime, Progress, PullPolicy, Result, SandboxConfig,
    SandboxExt, SandboxName,
};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Outcome, is_absent};
use crate::{args::CreateArgs, config, context, context::Context, output::View};

pub(crate) async fn create(context: &Context, args: &CreateArgs) -> Result<Outcome> {
    if args.if_missing && !args.sandbox.dry_run && is_there(context, &args.name).await? {
        return Ok(Outcome::Show(View::Names(vec![args.name.to_string()]), false));
    }
    let (mut config, options) = config::sandbox(&args.sandbox).await?;
    if !options.env.is_empty() || options.cwd.is_some() {
        let what = "a sandbox keeps only text: a variable or the working directory is not UTF-8";
        return Err(Error::new(ErrorKind::InvalidConfig, "create sandbox", what)
            .with_hint("give it to each command: `agentkernel exec NAME --env … --workdir …`"));
    }
    config.lifetime = Lifetime::Detached;
    if args.sandbox.dry_run {
        return super::plan::plan(context, &config, &args.name).await;
    }
    let selection = context.registry.select(context.choice, &config).await?;
    pull_visibly(&*selection.backend, &mut config, args.sandbox.quiet).await?;
    let sandbox = selection.backend.sandbox(args.name.clone());
    context::reap(selection.backend);
    match sandbox.start(&config).await {
        // Another process was faster.
        Err(error)
            if args.if_missing
                && error.kind() == ErrorKind::AlreadyExists
                && is_there(context, &args.name).await? => {}
        made => made?,
    }
    Ok(Outcome::Show(View::Names(vec![args.name.to_string()]), false))
}

/// Whether there is a sandbox of ours of this name.
async fn is_there(context: &Context, name: &SandboxName) -> Result<bool> {
    let found = match context.sandbox(name).await {
        Ok(sandbox) => sandbox.inspect().await,
        Err(error) => Err(error),
    };
    if is_absent(&found) { Ok(false) } else { found.map(|_| true) }
}

/// Pulls what is missing with a progress bar, where there is a terminal to show it on. Without one the backend pulls by
/// itself, and nothing is asked of it twice.
pub(super) async fn pull_visibly(
    backend: &dyn Backend,
    config: &mut SandboxConfig,
    quiet: bool,
) -> Result<()> {
    let (Some(images), Some(image)) = (backend.images(), &config.image) else { return Ok(()) };
    let image: ImageRef = image.parse()?;
    let is_quiet =
        quiet || !io::stderr().is_terminal() || config.pull == PullPolicy::Never || image.is_local();
    if is_quiet || (config.pull == PullPolicy::Missing && images.inspect(&image).await?.is_some()) {
        return Ok(());
    }
    pull(images, &image).await?;
    // What is here now is what was asked for.
    config.pull = PullPolicy::Missing;
    Ok(())
}

/// Pulls an image, with a progress bar on a terminal.
pub(super) async fn pull(images: &dyn ImageStore, image: &ImageRef) -> Result<()> {
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {bytes} / {total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar.set_message(format!("pulling {image}"));
    let mut events = pin!(images.pull(image).await?);
    while let Some(event) = events.next().await {
        match event? {
            Progress::Bytes { done, total } => {
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(done);
            }
            Progress::Percent(percent) => {
                bar.set_style(ProgressStyle::default_spinner());
                bar.set_message(format!("pulling {image} {percent}%"));
            }
            _ => {}
        }
    }
    bar.finish_and_clear();
    Ok(())
}
