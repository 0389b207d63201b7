//! The engine's standard output and standard error, while it runs and afterwards.

use std::ops::Range;

use axum::{
    extract::State as FromState,
    response::{IntoResponse as _, Redirect, Response},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use stepwes_cloud::{
    http::{Caller, HttpError, Params},
    objects::{Download, ObjectError},
};
use stepwes_core::{
    ApiError, RunId,
    keys::{self, LogStream},
};

use crate::{State, range::ByteRange};

/// How many segments are fetched at once.
const FETCHES_AT_ONCE: usize = 8;

/// How often a log that is replaced under our hands is looked at again.
const TRIES: usize = 3;

/// What a log is answered as.
const TEXT: &str = "text/plain; charset=utf-8";

/// `GET /runs/{id}/logs/{stream}`: the log of the present attempt. A whole log is redirected to, in
/// S3. One that is still being written is put together from its segments: as much as one answer
/// holds, from where `Range` says. An answer that does not hold all that was asked for is a 206
/// whose `Content-Range` says what it holds, also when no range was asked for.
pub(crate) async fn get_log(
    FromState(state): FromState<State>,
    caller: Caller,
    Params((run_id, stream)): Params<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let known = [LogStream::Stdout, LogStream::Stderr];
    let Some(stream) = known.into_iter().find(|known| known.as_str() == stream) else {
        return Err(ApiError::NotFound(
            "a run has two logs: logs/stdout and logs/stderr".to_owned(),
        )
        .into());
    };
    let range = ByteRange::read(&headers);
    let max = state.settings.limits.max_log_bytes;
    for _ in 0..TRIES {
        let segments = match find(&state, run.run_id, run.attempt, stream).await? {
            Found::Whole(key) => return redirect(&state, &key).await,
            Found::Segments(segments) => segments,
        };
        let total = segments.last().map_or(0, |segment| segment.range.end);
        let piece = Piece::choose(total, range, max)?;
        // A segment that is gone by now has given way to the whole log: look again.
        if let Some(content) = read(&state, segments, &piece.range).await? {
            return Ok(piece.answer(content));
        }
    }
    Err(ApiError::Unavailable("the log is being replaced; send the request again".to_owned())
        .into())
}

async fn redirect(state: &State, key: &str) -> Result<Response, HttpError> {
    let download = Download { content_type: Some(TEXT.to_owned()), disposition: None };
    let url = state.objects.presign_get(key, state.settings.presign_expiry, download).await?;
    Ok(Redirect::temporary(&url).into_response())
}

/// What there is of a log.
enum Found {
    /// The key of the whole of it.
    Whole(String),
    /// Its beginning, without gaps; perhaps nothing.
    Segments(Vec<Segment>),
}

/// One piece of a log in S3.
struct Segment {
    key: String,
    /// Where its bytes are in the log.
    range: Range<u64>,
}

/// One listing finds both: the whole log's key is a prefix of its segments'.
async fn find(
    state: &State,
    run_id: RunId,
    attempt: u32,
    stream: LogStream,
) -> Result<Found, ObjectError> {
    if attempt == 0 {
        return Ok(Found::Segments(Vec::new()));
    }
    let whole = keys::log(run_id, attempt, stream);
    let prefix = keys::log_segments(run_id, attempt, stream);
    let listed = state.objects.list(&whole).await?;
    if listed.iter().any(|object| object.key == whole) {
        return Ok(Found::Whole(whole));
    }
    let mut segments = Vec::with_capacity(listed.len());
    let mut end = 0;
    for object in listed {
        let offset = object.key.strip_prefix(&prefix).and_then(|name| name.parse::<u64>().ok());
        // Behind a gap nothing counts: it is filled when the engine task tries again.
        if offset == Some(end) {
            end += object.size;
            segments.push(Segment { key: object.key, range: end - object.size..end });
        }
    }
    Ok(Found::Segments(segments))
}

/// The bytes of `wanted`; `None` when a segment is not there any more.
async fn read(
    state: &State,
    segments: Vec<Segment>,
    wanted: &Range<u64>,
) -> Result<Option<Bytes>, ObjectError> {
    let (first, end) = (wanted.start, wanted.end);
    let overlapping = segments
        .into_iter()
        .filter(move |segment| segment.range.start < end && first < segment.range.end);
    let mut pieces = stream::iter(overlapping)
        .map(|segment| async move {
            let start = segment.range.start;
            let within = first.max(start) - start..=end.min(segment.range.end) - start - 1;
            state.objects.get_bytes(&segment.key, Some(within)).await
        })
        .buffered(FETCHES_AT_ONCE);
    let mut content = BytesMut::new();
    while let Some(piece) = pieces.try_next().await? {
        let Some(piece) = piece else { return Ok(None) };
        content.extend_from_slice(&piece);
    }
    Ok(Some(content.freeze()))
}

/// Which bytes of a log an answer holds.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    range: Range<u64>,
    total: u64,
    /// Whether the answer says which bytes it holds.
    partial: bool,
}

impl Piece {
    /// As much of what was asked for as one answer holds.
    fn choose(total: u64, asked: Option<ByteRange>, max: u64) -> Result<Self, HttpError> {
        let range = match asked {
            // An empty log has no byte 0 yet, but who asks for all that will come shall get it.
            None | Some(ByteRange::From(0)) if total == 0 => {
                return Ok(Self { range: 0..0, total, partial: false });
            }
            None => 0..total,
            Some(asked) => asked.of(total).ok_or_else(|| not_satisfiable(total))?,
        };
        let end = range.end.min(range.start.saturating_add(max));
        let range = range.start..end;
        let partial = asked.is_some() || end < total;
        Ok(Self { range, total, partial })
    }

    fn answer(self, content: Bytes) -> Response {
        let mut response = content.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if self.partial {
            let Range { start, end } = self.range;
            let value = format!("bytes {start}-{}/{}", end.saturating_sub(1), self.total);
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}

fn not_satisfiable(total: u64) -> HttpError {
    let error = HttpError::from(ApiError::RangeNotSatisfiable(format!(
        "the range begins beyond the log's {total} bytes; ask again when more has been written"
    )));
    match HeaderValue::from_str(&format!("bytes */{total}")) {
        Ok(value) => error.with_header(header::CONTENT_RANGE, value),
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(total: u64, asked: Option<ByteRange>) -> Option<(Range<u64>, bool)> {
        Piece::choose(total, asked, 10).ok().map(|piece| (piece.range, piece.partial))
    }

    #[test]
    fn an_answer_that_is_not_the_whole_log_says_so() {
        use ByteRange::{Between, From, Last};
        for (total, asked, expected) in [
            (0, None, Some((0..0, false))),
            (0, Some(From(0)), Some((0..0, false))),
            (0, Some(From(1)), None),
            (0, Some(Last(5)), None),
            (10, None, Some((0..10, false))),
            (11, None, Some((0..10, true))),
            (30, Some(From(0)), Some((0..10, true))),
            (30, Some(From(25)), Some((25..30, true))),
            (30, Some(From(30)), None),
            (30, Some(Between(4, 6)), Some((4..7, true))),
            (30, Some(Last(20)), Some((10..20, true))),
        ] {
            assert_eq!(choose(total, asked), expected, "{asked:?} of {total}");
        }
    }
}
