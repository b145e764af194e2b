//! Wire types of the HTTP API: what is accepted and what is answered.
