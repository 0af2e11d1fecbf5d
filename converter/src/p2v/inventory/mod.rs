//! What a server is made of and runs: the facts that everything else of P2V stands on.

pub mod model;
