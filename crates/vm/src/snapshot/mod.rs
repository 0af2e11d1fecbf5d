//! Snapshots of a machine: a tree of images, kept in VMware's layout.

// The verbs that use them follow.
#[allow(dead_code)]
mod graph;
#[allow(dead_code)]
mod plan;
#[cfg(test)]
#[allow(dead_code)]
mod testing;
