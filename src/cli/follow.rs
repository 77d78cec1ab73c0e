//! Following sagas to their end, with their story.

use std::time::{Duration, Instant};

use anyhow::Result;
use uuid::Uuid;

use super::code::Code;
use super::console::Console;
use super::output;
use super::source::Source;
use super::story::{Limits, Record};
use crate::core::story::StoryLine;

/// Between two looks at a saga that is followed.
const TICK: Duration = Duration::from_millis(100);
/// How long nothing may happen before we say why.
const PATIENCE: Duration = Duration::from_secs(3);

/// One saga that is followed.
struct Followed {
    id: Uuid,
    told: usize,
    progress: Vec<StoryLine>,
    limits: Option<Limits>,
    record: Option<Record>,
}

/// Follows what an event starts, until all of it has ended or cannot go on.
pub(super) async fn event(source: &Source, event: Uuid, deadline: Option<Instant>, quiet: bool) -> Result<Code> {
    let began = Instant::now();
    let mut has_explained = false;
    let sagas = loop {
        let effect = source.effect(event).await?;
        if effect.is_routed() {
            if effect.sagas.is_empty() {
                output::talk(effect.why);
                return Ok(Code::NotFound);
            }
            break effect.sagas;
        }
        if is_past(deadline) {
            output::talk(effect.why);
            return Ok(Code::TimedOut);
        }
        if began.elapsed() > PATIENCE && !has_explained {
            has_explained = true;
            output::talk(effect.why);
        }
        tokio::time::sleep(TICK).await;
    };
    self::sagas(source, &sagas, deadline, quiet).await
}

/// Follows these sagas.
pub(super) async fn sagas(source: &Source, ids: &[Uuid], deadline: Option<Instant>, quiet: bool) -> Result<Code> {
    let mut console = Console::new();
    let mut followed: Vec<Followed> = ids.iter().map(|&id| Followed { id, told: 0, progress: Vec::new(), limits: None, record: None }).collect();
    let mut last_news = Instant::now();
    let mut explained = String::new();
    loop {
        let mut has_news = false;
        for saga in followed.iter_mut().filter(|saga| saga.record.as_ref().is_none_or(|record| !record.is_over())) {
            has_news |= saga.look(source, &mut console, quiet).await?;
        }
        let records = || followed.iter().filter_map(|saga| saga.record.as_ref());
        if records().all(|record| record.is_over() || record.needs_human()) {
            console.rest();
            records().filter(|record| record.needs_human()).filter_map(|record| record.why.as_ref()).for_each(output::talk);
            return Ok(worst(records()));
        }
        let why = || records().find(|record| !record.is_over()).and_then(|record| record.why.clone()).unwrap_or_default();
        if is_past(deadline) {
            console.rest();
            output::talk(format_args!("the wait is over: {}", why()));
            return Ok(match worst(records()) {
                Code::Ok => Code::TimedOut,
                worse => worse,
            });
        }
        if has_news {
            last_news = Instant::now();
        } else if last_news.elapsed() > PATIENCE {
            last_news = Instant::now();
            // The seconds in the sentence change; its beginning tells whether it says something new.
            let sentence = why();
            let start: String = sentence.chars().take_while(|c| *c != ',').collect();
            if start != explained {
                output::talk(sentence);
                explained = start;
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

impl Followed {
    /// Reads it and tells what is new.
    async fn look(&mut self, source: &Source, console: &mut Console, quiet: bool) -> Result<bool> {
        let record = source.record(self.id).await?;
        if self.limits.is_none() {
            self.limits = Some(source.limits(&record.definition).await);
        }
        let story = record.story(self.limits.as_ref().unwrap_or(&Limits::new()));
        let has_news = story.len() > self.told;
        if !quiet {
            for line in &story[self.told.min(story.len())..] {
                console.tell(line)?;
            }
            if let Some(line) = record.calling() {
                console.tell(&line)?;
            }
            let progress = record.progress();
            for line in progress.iter().filter(|line| !self.progress.contains(line)) {
                console.tell(line)?;
            }
            self.progress = progress;
        }
        self.told = story.len();
        self.record = Some(record);
        Ok(has_news)
    }
}

/// The worst end of several.
fn worst<'a>(records: impl Iterator<Item = &'a Record>) -> Code {
    let mut worst = Code::Ok;
    for record in records {
        if record.is_over() && record.state != "completed" {
            return Code::SagaFailed;
        }
        if record.needs_human() {
            worst = Code::NeedsHuman;
        }
    }
    worst
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}
