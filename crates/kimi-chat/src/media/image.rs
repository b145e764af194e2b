//! Images: bytes of a file → patches.

use std::io::Cursor;
use std::sync::Arc;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use kimi_tokens::Medium;

use super::patches::{self, Fit, IMAGE_LIMIT};
use super::{MAX_PIXELS, MAX_SIDE, MediaBudget, MediaError, check_size, survive};

/// Bytes of a decoded pixel at most: four colours of 16 bits.
const PIXEL_BYTES: u64 = 8;

/// Decodes a PNG, JPEG, WebP, GIF or BMP image, of an animation the first picture, and cuts it into patches.
///
/// Pixels are those of Pillow's `convert("RGB")`: alpha is dropped, palettes are looked up, a stored rotation is ignored.
///
/// # Errors
/// [`MediaError`] if the bytes are no such image, or one that is too large for `budget`.
pub fn prepare_image(bytes: &[u8], budget: &mut MediaBudget) -> Result<Arc<Medium>, MediaError> {
    survive(MediaError::BrokenImage { format: "image" }, || prepare(bytes, budget))
}

fn prepare(bytes: &[u8], budget: &mut MediaBudget) -> Result<Arc<Medium>, MediaError> {
    let format = image::guess_format(bytes).map_err(|_| MediaError::UnknownImage)?;
    let name = name(format).ok_or(MediaError::UnknownImage)?;
    let broken = |_: ImageError| MediaError::BrokenImage { format: name };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    // The header alone is read here.
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let fit = Fit::new(width, height, IMAGE_LIMIT);
    let grid = fit.grid(1);
    budget.take(grid, 1, 1)?;
    budget.take_pixels(width, height)?;
    if format == ImageFormat::Jpeg && is_cut_off(bytes) {
        return Err(MediaError::BrokenImage { format: name });
    }
    decoder.set_limits(limits()).map_err(broken)?;
    let image = to_rgb(DynamicImage::from_decoder(decoder).map_err(broken)?);
    let mut pixels = Vec::new();
    fit.append(image, &mut pixels);
    Ok(Arc::new(patches::medium(grid, pixels)))
}

/// Whether a JPEG ends inside of its last scan; the decoder would paint what is missing grey. Inside of scans, no marker can
/// occur by chance (ITU-T T.81 § B.1.1.5).
fn is_cut_off(jpeg: &[u8]) -> bool {
    const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let scan = jpeg.windows(2).rposition(|marker| marker == START_OF_SCAN).unwrap_or(0);
    !jpeg[scan..].windows(2).any(|marker| marker == END_OF_IMAGE)
}

/// What a decoder may take.
pub(super) fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_PIXELS * PIXEL_BYTES);
    limits
}

/// The formats that are taken, as people call them.
fn name(format: ImageFormat) -> Option<&'static str> {
    Some(match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        _ => return None,
    })
}

/// Pillow's `convert("RGB")`. Of 16 bits it keeps the high 8; but grey ones, which it keeps as they are when it reads them,
/// it cuts off at 255.
fn to_rgb(image: DynamicImage) -> RgbImage {
    let high = |sample: u16| (sample >> 8) as u8;
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma16(image) => {
            mapped(image.width(), image.height(), image.pixels().map(|pixel| [pixel[0].min(255) as u8; 3]))
        }
        DynamicImage::ImageLumaA16(image) => {
            mapped(image.width(), image.height(), image.pixels().map(|pixel| [high(pixel[0]); 3]))
        }
        DynamicImage::ImageRgb16(image) => {
            mapped(image.width(), image.height(), image.pixels().map(|pixel| pixel.0.map(high)))
        }
        DynamicImage::ImageRgba16(image) => {
            let pixels = image.pixels().map(|pixel| [0, 1, 2].map(|colour| high(pixel[colour])));
            mapped(image.width(), image.height(), pixels)
        }
        image => image.into_rgb8(),
    }
}

fn mapped(width: u32, height: u32, pixels: impl Iterator<Item = [u8; 3]>) -> RgbImage {
    let samples = pixels.flatten().collect();
    RgbImage::from_raw(width, height, samples).expect("invariant: a pixel for each of width × height")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the table that was made with the reference's preprocessor.
    #[test]
    fn sizes_and_grids_are_the_reference_s() {
        for (size, limit, resized, grid, tokens) in [
            ((1, 1), IMAGE_LIMIT, (1, 1), (2, 2), 1),
            ((29, 28), IMAGE_LIMIT, (29, 28), (4, 2), 2),
            ((640, 480), IMAGE_LIMIT, (640, 480), (46, 36), 414),
            ((1024, 1024), IMAGE_LIMIT, (1024, 1024), (74, 74), 1369),
            ((1920, 1080), IMAGE_LIMIT, (1920, 1080), (138, 78), 2691),
            ((3000, 3000), IMAGE_LIMIT, (1794, 1794), (130, 130), 4225),
            ((4032, 3024), IMAGE_LIMIT, (2069, 1551), (148, 112), 4144),
            ((10_000, 100), IMAGE_LIMIT, (7168, 71), (512, 6), 768),
            ((1920, 1080), patches::FRAME_LIMIT, (1196, 672), (86, 48), 1032),
            ((1024, 1024), patches::FRAME_LIMIT, (897, 897), (66, 66), 1089),
        ] {
            let fit = Fit::new(size.0, size.1, limit);
            assert_eq!((fit.width, fit.height), resized, "{size:?}");
            let patches = fit.grid(1);
            assert_eq!(
                (patches.width, patches.height, patches.tokens()),
                (grid.0, grid.1, tokens),
                "{size:?}"
            );
        }
    }
}
