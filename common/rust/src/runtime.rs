// SPDX-License-Identifier: Apache-2.0
//! The threads that wait for the network, for object stores and for HTTP.

use std::sync::OnceLock;

use tokio::runtime::Runtime;

const THREADS: usize = 2;

/// The threads; TLS is chosen once they are there. None where the system gives no threads.
pub fn runtime() -> Option<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        // Fails where somebody else in the process has chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("network")
            .enable_all()
            .build()
            .ok()
    });
    runtime.as_ref()
}

/// The error in words, with those of its causes that are not in its own already.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let words = deeper.to_string();
        if !message.contains(&words) {
            message = format!("{message}: {words}");
        }
        cause = deeper.source();
    }
    message
}
