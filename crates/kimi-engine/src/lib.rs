//! The engine thread: requests in, token events out.
