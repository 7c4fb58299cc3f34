//! A story that runs twice produces the same trace, byte for byte: ids, order of calls, times.

use std::time::Duration;

use greenroom_sim::run;

#[test]
fn same_story_same_trace() {
    let story = include_str!("../stories/reference/91-mixed-load.json");
    let tell = || run(story, Duration::from_secs(60)).unwrap();
    let (once, again) = (tell(), tell());
    assert!(
        once.len() > 10_000,
        "the story is long enough to differ: {} bytes",
        once.len()
    );
    assert!(once == again, "the traces differ");
}
