//! Bodies of random bytes: never a panic, never a hang, and 4xx unless they are good.

use std::convert::Infallible;

use axum::body::Body;
use futures::stream;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use stepwes_core::ApiError;
use stepwes_submit::{Limits, Submission, read};

fn read_now(content_type: &'static str, chunks: Vec<Vec<u8>>) -> Result<Submission, ApiError> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(content_type));
    let chunks = chunks.into_iter().map(Ok::<_, Infallible>);
    let body = Body::from_stream(stream::iter(chunks));
    let limits = Limits { max_request_bytes: 300, max_field_bytes: 200, ..Limits::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(read(&headers, body, &limits))
}

/// Pieces of which forms are made, in any order.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed = vec![
        "--x",
        "--x\r\n",
        "--x--",
        "--x--\r\n",
        "\r\n",
        "\r\n\r\n",
        "Content-Disposition: form-data; name=\"workflow_type\"",
        "Content-Disposition: form-data; name=\"workflow_attachment\"; filename=\"a\"",
        "Content-Disposition: form-data; name=\"workflow_attachment\"; filename*=UTF-8''%",
        "Content-Disposition: form-data; name=",
        "Content-Disposition",
        ": ",
        "CWL",
        "\"",
        "\\",
    ];
    prop_oneof![
        4 => proptest::sample::select(fixed).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn random_bytes_are_no_form(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let error = read_now("multipart/form-data; boundary=x", vec![bytes]).expect_err("no form");
        prop_assert!((400..500).contains(&error.status()));
    }

    #[test]
    fn shuffled_pieces_of_forms_are_read_or_refused(chunks in proptest::collection::vec(piece(), 0..30)) {
        if let Err(error) = read_now("multipart/form-data; boundary=x", chunks) {
            prop_assert!((400..500).contains(&error.status()), "{error}");
        }
    }

    #[test]
    fn random_bytes_are_no_json(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let error = read_now("application/json", vec![bytes]).expect_err("no request");
        prop_assert!((400..500).contains(&error.status()));
    }
}
