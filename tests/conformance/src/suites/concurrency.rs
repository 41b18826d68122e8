//! Many at once: exactly one winner, nobody waits for another, and lists are exact.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agentkernel_core::{ErrorKind, ExecOptions, ExitStatus, Filter, Sandbox, SandboxExt};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;

use super::lifecycle::detached;
use crate::{
    fixture::{Fixture, command, command_with, kind, output, script, sh},
    rule::rules,
    wait::soon,
};

rules![
    of_creates_of_one_name_exactly_one_wins,
    twenty_commands_run_at_once,
    a_blocked_command_holds_up_no_other,
    an_unread_input_holds_up_no_other[ExecStdin],
    files_move_while_a_command_is_blocked[Files],
    stops_at_once_all_succeed,
    removes_at_once_all_succeed,
    a_stop_during_commands_leaves_none_hanging,
    a_remove_during_a_command_leaves_it_not_hanging,
    writers_of_one_file_leave_one_whole_content[Files],
    two_sandboxes_share_no_files[Files],
    two_sandboxes_share_no_processes,
    the_list_is_exact[Persistence],
    a_name_is_never_taken_for_its_prefix,
    the_list_is_ordered_by_name,
    the_list_can_be_kept_to_labels,
    the_list_can_be_kept_to_running_ones[Persistence],
    the_list_tells_what_inspect_tells,
];

async fn of_creates_of_one_name_exactly_one_wins(fixture: Fixture) {
    let name = fixture.name();
    let handles = (0..6).map(|_| fixture.backend().sandbox(name.clone())).collect::<Vec<_>>();
    let config = fixture.config();
    let results = join_all(handles.iter().map(|handle| handle.start(&config))).await;
    let mut kinds = results.into_iter().map(kind).collect::<Vec<_>>();
    kinds.sort_by_key(Option::is_some);
    let mut expected = vec![Some(ErrorKind::AlreadyExists); 6];
    expected[0] = None;
    assert_eq!(kinds, expected);
}

async fn twenty_commands_run_at_once(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let outputs = (0..20).map(|number| {
        let sandbox = &sandbox;
        async move { output(sandbox, &script(&format!("echo {number}; exit {number}"))).await }
    });
    let outputs = join_all(outputs).await;
    let seen = outputs.iter().map(|output| (output.stdout.clone(), output.status));
    let expected = (0..20u8).map(|number| (format!("{number}\n").into(), ExitStatus::Code(number)));
    assert_eq!(seen.collect::<Vec<_>>(), expected.collect::<Vec<(bytes::Bytes, _)>>());
}

async fn a_blocked_command_holds_up_no_other(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut blocked = sandbox.spawn(&command(&["yes"])).await.unwrap();
    blocked.next_event().await.unwrap().unwrap();
    for _ in 0..5 {
        let output = soon("the other command ends", output(&sandbox, &command(&["echo", "free"]))).await;
        assert_eq!(output.stdout, "free\n");
    }
}

async fn an_unread_input_holds_up_no_other(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let options = ExecOptions::default().with_stdin();
    let mut deaf = sandbox.spawn(&command_with(&["sleep", "1000"], options)).await.unwrap();
    let mut stdin = deaf.take_stdin().unwrap();
    let filling = tokio::time::timeout(Duration::from_secs(1), async {
        while stdin.write_all(&[0; 65536]).await.is_ok() {}
    });
    assert!(filling.await.is_err(), "the input of a command that reads nothing has no bound");
    let output = soon("the other command ends", output(&sandbox, &command(&["echo", "free"]))).await;
    assert_eq!(output.stdout, "free\n");
}

async fn files_move_while_a_command_is_blocked(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let mut blocked = sandbox.spawn(&command(&["yes"])).await.unwrap();
    blocked.next_event().await.unwrap().unwrap();
    soon("the file is written", sandbox.write_file("/tmp/file", b"x")).await.unwrap();
    assert_eq!(soon("the file is read", sandbox.read_file("/tmp/file")).await.unwrap(), b"x");
}

async fn stops_at_once_all_succeed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let stops = join_all((0..5).map(|_| sandbox.stop())).await;
    assert_eq!(stops.into_iter().map(kind).collect::<Vec<_>>(), [None; 5]);
}

async fn removes_at_once_all_succeed(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let removes = join_all((0..5).map(|_| sandbox.remove())).await;
    assert_eq!(removes.into_iter().map(kind).collect::<Vec<_>>(), [None; 5]);
}

async fn a_stop_during_commands_leaves_none_hanging(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let running = (0..5).map(|_| {
        let sandbox = Arc::clone(&sandbox);
        tokio::spawn(async move {
            loop {
                if sandbox.exec(&["echo", "x"]).await.is_err() {
                    return;
                }
            }
        })
    });
    let running = running.collect::<Vec<_>>();
    sandbox.exec(&["true"]).await.unwrap();
    soon("stop returns", sandbox.stop()).await.unwrap();
    soon("every command ends", join_all(running)).await;
}

async fn a_remove_during_a_command_leaves_it_not_hanging(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let session = sandbox.spawn(&command(&["sleep", "1000"])).await.unwrap();
    sandbox.remove().await.unwrap();
    let ended = soon("the session ends", session.collect()).await;
    assert!(!ended.is_ok_and(|output| output.status == ExitStatus::Code(0)));
}

async fn writers_of_one_file_leave_one_whole_content(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let contents = (0..8u8).map(|letter| vec![b'a' + letter; 100_000]).collect::<Vec<_>>();
    let writes = join_all(contents.iter().map(|content| sandbox.write_file("/tmp/file", content))).await;
    assert_eq!(writes.into_iter().map(kind).collect::<Vec<_>>(), [None; 8]);
    assert!(contents.contains(&sandbox.read_file("/tmp/file").await.unwrap()));
}

async fn two_sandboxes_share_no_files(fixture: Fixture) {
    let one = fixture.start().await;
    let other = fixture.start().await;
    one.write_file("/tmp/file", b"x").await.unwrap();
    assert_eq!(kind(other.read_file("/tmp/file").await), Some(ErrorKind::NotFound));
}

async fn two_sandboxes_share_no_processes(fixture: Fixture) {
    let one = fixture.start().await;
    let other = fixture.start().await;
    let _running = one.spawn(&command(&["sleep", "1000"])).await.unwrap();
    assert_eq!(other.commands().await.unwrap().len(), 0);
}

async fn the_list_is_exact(fixture: Fixture) {
    let stopped = fixture.start_with(&detached(&fixture)).await;
    stopped.stop().await.unwrap();
    let longer = fixture.registered(&format!("{}2", &**stopped.name()));
    let running = fixture.backend().sandbox(longer);
    running.start(&fixture.config()).await.unwrap();
    assert_eq!((stopped.is_running().await.unwrap(), running.is_running().await.unwrap()), (false, true));
}

async fn a_name_is_never_taken_for_its_prefix(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let shorter = &sandbox.name()[..sandbox.name().len() - 1];
    let prefix = fixture.backend().sandbox(fixture.registered(shorter.trim_end_matches('-')));
    assert_eq!(kind(prefix.inspect().await), Some(ErrorKind::NotFound));
    prefix.remove().await.unwrap();
    assert!(sandbox.is_running().await.unwrap());
}

/// Starts three sandboxes with a label of this trial's own and returns the filter for them.
async fn labeled(fixture: &Fixture) -> (Vec<Arc<dyn Sandbox>>, Filter) {
    let label = fixture.name().to_string();
    let mut all = Vec::new();
    for part in ["one", "two", "three"] {
        let mut config = fixture.config();
        config.labels =
            BTreeMap::from([("trial".to_owned(), label.clone()), ("part".to_owned(), part.to_owned())]);
        all.push(fixture.start_with(&config).await);
    }
    (all, Filter { labels: BTreeMap::from([("trial".to_owned(), label)]), ..Filter::default() })
}

async fn list(fixture: &Fixture, filter: &Filter) -> Vec<String> {
    let listed = fixture.backend().list(filter).await.unwrap();
    listed.into_iter().map(|info| info.name.to_string()).collect()
}

async fn the_list_is_ordered_by_name(fixture: Fixture) {
    let (all, filter) = labeled(&fixture).await;
    let mut expected = all.iter().map(|sandbox| sandbox.name().to_string()).collect::<Vec<_>>();
    expected.sort();
    assert_eq!(list(&fixture, &filter).await, expected);
}

async fn the_list_can_be_kept_to_labels(fixture: Fixture) {
    let (all, mut filter) = labeled(&fixture).await;
    filter.labels.insert("part".into(), "two".into());
    assert_eq!(list(&fixture, &filter).await, [all[1].name().to_string()]);
}

async fn the_list_can_be_kept_to_running_ones(fixture: Fixture) {
    let (_all, mut filter) = labeled(&fixture).await;
    let mut config = detached(&fixture);
    config.labels = filter.labels.clone();
    let stopped = fixture.start_with(&config).await;
    stopped.stop().await.unwrap();
    let in_any_state = list(&fixture, &filter).await.len();
    filter.running = true;
    assert_eq!((in_any_state, list(&fixture, &filter).await.len()), (4, 3));
}

async fn the_list_tells_what_inspect_tells(fixture: Fixture) {
    let sandbox = fixture.start().await;
    sh(&sandbox, "true").await;
    let listed = fixture.backend().list(&Filter::default()).await.unwrap();
    let listed = listed.into_iter().find(|info| info.name == *sandbox.name()).unwrap();
    let inspected = sandbox.inspect().await.unwrap();
    assert_eq!(
        (listed.id, listed.state, listed.labels, listed.lifetime, listed.created),
        (inspected.id, inspected.state, inspected.labels, inspected.lifetime, inspected.created)
    );
}
