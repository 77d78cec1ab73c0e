//! Reading a reply: never more of it than is kept.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::DateTime;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};

use crate::core::call::REPLY_BYTES_MAX;

/// The longest `Retry-After` that is believed: a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How far a body was read.
pub(super) enum Read {
    /// To its end: the connection can be used again.
    Whole(Bytes),
    /// It is larger than we keep; reading stopped.
    TooLarge,
}

/// Reads a body up to the limit.
pub(super) async fn read(mut body: Incoming) -> Result<Read, hyper::Error> {
    // A body that announces its size is not even begun if it is too large.
    if body.size_hint().lower() > REPLY_BYTES_MAX as u64 {
        return Ok(Read::TooLarge);
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut trailers = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            trailers += 1;
            if trailers > 1 {
                return Ok(Read::TooLarge);
            }
            continue;
        };
        if first.len() + whole.len() + data.len() > REPLY_BYTES_MAX {
            return Ok(Read::TooLarge);
        }
        // Most replies are one piece, which is then not copied.
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Read::Whole(if whole.is_empty() { first } else { whole.freeze() }))
}

/// The headers whose values are text.
pub(super) fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect()
}

/// `Retry-After` in either form. A date counts from the reply's own `Date`, so that the clocks of two hosts need not agree.
pub(super) fn retry_after(headers: &HeaderMap, now_unix_secs: i64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit mean "very long".
        if text.is_empty() { None } else { Some(text.parse().unwrap_or(u64::MAX)) }
    } else {
        let then = date(text)?;
        let from = headers.get(header::DATE).and_then(|value| date(value.to_str().ok()?)).unwrap_or(now_unix_secs);
        Some(u64::try_from(then.saturating_sub(from)).unwrap_or(0))
    };
    seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn date(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value"))).collect();
        retry_after(&headers, 1_700_000_000)
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")]), Some(Duration::from_secs(30)));
        let skewed = [("retry-after", "Wed, 01 Jan 2020 00:01:00 GMT"), ("date", "Wed, 01 Jan 2020 00:00:00 GMT")];
        assert_eq!(wait(&skewed), Some(Duration::from_secs(60)), "by the service's own clock");
    }

    #[test]
    fn nonsense_is_no_wish_and_wishes_are_bounded() {
        for text in ["", "-1", "soon", "1.5", "+3"] {
            assert_eq!(wait(&[("retry-after", text)]), None, "{text:?}");
        }
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "99999999999999999999999")]), Some(RETRY_AFTER_MAX));
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(Duration::ZERO));
    }
}
