//! Fault injection and the conformance suite, for the tests of every crate with drivers.
