//! The HTTP layer: routes, validation, server-sent events, errors.
