//! What comes at a shim's socket: frames of ttrpc, in pieces of any size, with messages of protobuf in them.

#![no_main]

#[path = "../../crates/shim/src/ttrpc/frame.rs"]
#[allow(dead_code)]
mod frame;
#[path = "../../crates/shim/src/protos/mod.rs"]
#[allow(dead_code)]
mod protos;

use frame::{Content, Decoder, Frame};
use prost::Message;
use protos::task::{CreateTaskRequest, ExecProcessRequest, UpdateTaskRequest};
use protos::{Any, Request};

/// All frames, when what comes is read in pieces of this size.
fn frames(bytes: &[u8], size: usize) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(size) {
        decoder.push(piece);
        found.extend(std::iter::from_fn(|| decoder.next()));
    }
    found
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let whole = frames(bytes, usize::MAX);
    assert_eq!(frames(bytes, 7), whole);
    for frame in whole {
        let Content::Message(message) = frame.content else {
            continue;
        };
        let Ok(request) = Request::decode(&*message) else {
            continue;
        };
        let payload = &*request.payload;
        let _ = (
            CreateTaskRequest::decode(payload),
            ExecProcessRequest::decode(payload),
        );
        let _ = (UpdateTaskRequest::decode(payload), Any::decode(payload));
    }
});
