//! What services report about asynchronous steps. The token is the authority; nobody but its digest's row knows it.

use super::Store;
use super::orders::OrderError;
use crate::core::payload::Payload;

/// The end of an asynchronous step, as its service tells it.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// `ok` or `error`.
    pub status: String,
    /// What its undo is to be given.
    pub context: Option<Payload>,
    /// What it came to.
    pub output: Option<Payload>,
    /// For people.
    pub message: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// The same end was told before.
    Repeated,
    /// Another end was told before.
    Conflict,
    /// Nobody waits for it any more; it is kept.
    Late,
}

/// How far an asynchronous step has come.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// So much is done.
    pub done: Option<i64>,
    /// Of so much.
    pub total: Option<i64>,
    /// For people.
    pub message: Option<String>,
}

/// The step that a token is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Full id of the definition.
    pub definition: String,
    /// The step's name.
    pub step: String,
}

/// Text that Postgres can store.
fn storable(text: Option<String>) -> Option<String> {
    text.map(|text| text.replace('\0', "\u{fffd}"))
}

/// Ends a step.
///
/// # Errors
/// `Unknown` for a token that was never given out; `Invalid` for what is too large or no status.
pub async fn complete(store: &Store, token: &str, end: End) -> Result<Verdict, OrderError> {
    let End { status, context, output, message, error } = end;
    let (context, output) = (context.as_ref().map(Payload::text), output.as_ref().map(Payload::text));
    let (message, error) = (storable(message), storable(error));
    let client = store.client().await?;
    let row = client
        .query_one(
            "select syncor.complete($1, $2, $3::text::jsonb, $4::text::jsonb, $5, $6)",
            &[&token, &status, &context, &output, &message, &error],
        )
        .await?;
    Ok(match row.get::<_, &str>(0) {
        "accepted" => Verdict::Accepted,
        "repeated" => Verdict::Repeated,
        "conflict" => Verdict::Conflict,
        _ => Verdict::Late,
    })
}

/// Says that a step is still at work; which step that is, or `None` if nobody waits for it any more.
///
/// # Errors
/// `Unknown` for a token that was never given out.
pub async fn beat(store: &Store, token: &str, beat: Beat) -> Result<Option<Place>, OrderError> {
    let client = store.client().await?;
    let message = storable(beat.message);
    let row = client
        .query_one(
            "select b.said, d.id, d.steps[c.seq + 1]
               from syncor.beat($1, $2, $3, $4) b(said)
               left join syncor.callback c on c.digest = sha256(convert_to($1, 'UTF8'))
               left join syncor.saga s on s.id = c.saga_id
               left join syncor.definition d on d.no = s.definition_no",
            &[&token, &beat.done, &beat.total, &message],
        )
        .await?;
    let place =
        || Place { definition: row.get::<_, Option<String>>(1).unwrap_or_default(), step: row.get::<_, Option<String>>(2).unwrap_or_default() };
    Ok((row.get::<_, &str>(0) == "accepted").then(place))
}
