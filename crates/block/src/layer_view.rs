//! One layer of a chain by itself, with the content that the chain has there.

use std::sync::Arc;

use crate::{BlockImage, Extent, ImageInfo, Result};

/// One layer's map over its content. For an overlay that is the content of the chain from there
/// on, so that a unit of the new image which the layer stores in part is filled up from below.
pub struct LayerView {
    layer: Arc<dyn BlockImage>,
    content: Arc<dyn BlockImage>,
}

impl LayerView {
    /// Returns the map of `layer` over `content`.
    pub fn new(layer: Arc<dyn BlockImage>, content: Arc<dyn BlockImage>) -> Self {
        Self { layer, content }
    }
}

impl BlockImage for LayerView {
    fn info(&self) -> &ImageInfo {
        self.layer.info()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.content.read_at(offset, buf)
    }

    fn next_extent(&self, offset: u64) -> Result<Extent> {
        self.layer.next_extent(offset)
    }
}
