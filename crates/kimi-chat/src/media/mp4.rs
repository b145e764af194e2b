//! H.264 in MP4 and MOV files: `mp4parse` finds the pictures, `openh264` decodes them.

use std::io::Cursor;

use image::RgbImage;
use mp4parse::unstable::{Indice, create_sample_table};
use mp4parse::{CodecType, SampleEntry, Track, TrackType, VideoCodecSpecific};
use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource;

use super::video::Footage;
use super::{MediaBudget, MediaError, check_size};

/// Bytes of a picture that the decoder, which counts in 32 bits, is given at most.
const MAX_SAMPLE_BYTES: usize = 64 << 20;

/// A file whose pictures were found.
pub(super) struct Mp4<'a> {
    samples: Vec<&'a [u8]>,
    frames_per_second: f64,
    parameters: Parameters,
}

/// The parts of the decoder's configuration (`avcC`, ISO/IEC 14496-15 § 5.3.3.1) that are needed.
struct Parameters {
    /// Sequence and picture parameter sets, each behind a start code.
    sets: Vec<u8>,
    /// Bytes of the length before each unit of a picture.
    length_bytes: usize,
}

/// Reads the tables of an MP4 or MOV file.
pub(super) fn open(bytes: &[u8]) -> Result<Mp4<'_>, MediaError> {
    let unknown = |what| MediaError::UnknownVideo { what };
    if bytes.get(4..8) != Some(b"ftyp") && bytes.get(4..8) != Some(b"moov") {
        return Err(unknown("the data is no MP4, MOV, animated GIF or animated WebP"));
    }
    let context =
        mp4parse::read_mp4(&mut Cursor::new(bytes)).map_err(|_| MediaError::BrokenVideo { frame: 0 })?;
    if context.mvex.is_some() {
        return Err(unknown("the MP4 file is fragmented"));
    }
    let is_video = |track: &&Track| track.track_type == TrackType::Video;
    let track = context.tracks.iter().find(is_video).ok_or(unknown("the file has no video track"))?;
    let parameters = parameters(track)?;
    let table = table(track).ok_or(MediaError::BrokenVideo { frame: 0 })?;
    let slice = |(frame, sample): (usize, &Indice)| {
        let (start, end) = (sample.start_offset.0 as usize, sample.end_offset.0 as usize);
        let slice = bytes.get(start..end).filter(|slice| slice.len() <= MAX_SAMPLE_BYTES);
        slice.ok_or(MediaError::BrokenVideo { frame })
    };
    let samples = table.iter().enumerate().map(slice).collect::<Result<_, _>>()?;
    let frames_per_second = frames_per_second(track).ok_or(MediaError::BrokenVideo { frame: 0 })?;
    Ok(Mp4 { samples, frames_per_second, parameters })
}

/// Where the pictures are; at least one.
fn table(track: &Track) -> Option<Vec<Indice>> {
    // A size for all pictures would let a few bytes stand for billions of them; no encoder writes that.
    track.stsz.as_ref().filter(|sizes| sizes.sample_size == 0)?;
    let table: Vec<Indice> = create_sample_table(track, 0.into())?.into_iter().collect();
    (!table.is_empty()).then_some(table)
}

/// On average.
fn frames_per_second(track: &Track) -> Option<f64> {
    let runs = &track.stts.as_ref()?.samples;
    let frames: f64 = runs.iter().map(|run| f64::from(run.sample_count)).sum();
    let ticks: f64 = runs.iter().map(|run| f64::from(run.sample_count) * f64::from(run.sample_delta)).sum();
    let rate = frames * track.timescale?.0 as f64 / ticks;
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

fn parameters(track: &Track) -> Result<Parameters, MediaError> {
    let descriptions = track.stsd.iter().flat_map(|stsd| stsd.descriptions.iter());
    let config = descriptions.into_iter().find_map(|entry| match entry {
        SampleEntry::Video(video) if video.codec_type == CodecType::H264 => match &video.codec_specific {
            VideoCodecSpecific::AVCConfig(config) => Some(config.as_slice()),
            _ => None,
        },
        _ => None,
    });
    let config = config.ok_or(MediaError::UnknownVideo { what: "the video track is not H.264" })?;
    read_parameters(config).ok_or(MediaError::BrokenVideo { frame: 0 })
}

fn read_parameters(config: &[u8]) -> Option<Parameters> {
    let length_bytes = usize::from(config.get(4)? & 3) + 1;
    let mut rest = config.get(5..)?;
    let mut sets = Vec::new();
    // First the sequence parameter sets, whose count has three other bits above it, then those of the picture.
    for mask in [0x1f, 0xff] {
        let (&count, after) = rest.split_first()?;
        rest = after;
        for _ in 0..count & mask {
            let (set, after) = split_unit(rest, 2)?;
            append_unit(set, &mut sets);
            rest = after;
        }
    }
    Some(Parameters { sets, length_bytes })
}

/// A unit behind its length, and what is after it.
fn split_unit(bytes: &[u8], length_bytes: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    rest.split_at_checked(length)
}

/// A unit behind a start code (ITU-T H.264 annex B), as the decoder wants it.
fn append_unit(unit: &[u8], stream: &mut Vec<u8>) {
    stream.extend_from_slice(&[0, 0, 0, 1]);
    stream.extend_from_slice(unit);
}

impl Footage for Mp4<'_> {
    fn frames(&self) -> usize {
        self.samples.len()
    }

    fn frames_per_second(&self) -> f64 {
        self.frames_per_second
    }

    fn decode(
        self,
        indices: &[usize],
        budget: &mut MediaBudget,
        take: &mut dyn FnMut(RgbImage, &mut MediaBudget) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        // Frames come in the order in which they are shown, so the decoder must be allowed to hold some back.
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let api = OpenH264API::from_source();
        let mut decoder =
            Decoder::with_api_config(api, config).map_err(|_| MediaError::BrokenVideo { frame: 0 })?;
        let mut wanted = indices.iter().copied().peekable();
        let mut shown = 0;
        let mut show = |frame: &DecodedYUV<'_>, budget: &mut MediaBudget| {
            if wanted.next_if_eq(&shown).is_some() {
                take(to_rgb(frame)?, budget)?;
            }
            shown += 1;
            Ok(())
        };
        let mut stream = self.parameters.sets;
        for (frame, sample) in self.samples.into_iter().enumerate() {
            budget.check_stop()?;
            let broken = MediaError::BrokenVideo { frame };
            let mut rest = sample;
            while !rest.is_empty() {
                let (unit, after) = split_unit(rest, self.parameters.length_bytes).ok_or(broken.clone())?;
                append_unit(unit, &mut stream);
                rest = after;
            }
            if let Some(picture) = decoder.decode(&stream).map_err(|_| broken)? {
                show(&picture, budget)?;
            }
            stream.clear();
        }
        let held_back = decoder.flush_remaining().map_err(|_| MediaError::BrokenVideo { frame: 0 })?;
        for picture in &held_back {
            show(picture, budget)?;
        }
        if wanted.peek().is_some() {
            return Err(MediaError::BrokenVideo { frame: shown });
        }
        Ok(())
    }
}

/// ITU-R BT.601 with video levels, as the reference's decoder converts.
fn to_rgb(frame: &DecodedYUV<'_>) -> Result<RgbImage, MediaError> {
    let (width, height) = frame.dimensions();
    check_size(width as u32, height as u32)?;
    let mut samples = vec![0; width * height * 3];
    frame.write_rgb8(&mut samples);
    Ok(RgbImage::from_raw(width as u32, height as u32, samples)
        .expect("invariant: a pixel for each of width × height"))
}
