//! Random numbers without a state: each is a function of a key and a counter.
//!
//! In: the run's seed, a label for the purpose, a logical position. Out: bits, or a normal number. The generator is
//! Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so a checkpoint
//! has no generator state and any worker can draw any number. Not here: shuffles (`permutation`).

/// A Philox key: one stream of numbers for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhiloxKey([u32; 2]);

const CONTEXT: &str = "aurora rng v1";

impl PhiloxKey {
    /// Derives the key of one purpose (`layer.17.attention_dropout`, a tensor's name) from the run's seed: the first 8
    /// bytes of BLAKE3 in derive-key mode over the seed (u64, little-endian) and the label's bytes.
    pub fn derive(seed: u64, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&seed.to_le_bytes());
        hasher.update(label.as_bytes());
        let mut bytes = [0u8; 8];
        hasher.finalize_xof().fill(&mut bytes);
        let word = u64::from_le_bytes(bytes);
        Self([word as u32, (word >> 32) as u32])
    }

    pub const fn from_words(words: [u32; 2]) -> Self {
        Self(words)
    }

    /// The four words of one counter.
    #[inline]
    pub fn words(self, counter: [u32; 4]) -> [u32; 4] {
        philox(counter, self.0)
    }
}

/// Philox4x32 with ten rounds.
#[inline]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIER: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let product_0 = MULTIPLIER[0] * u64::from(counter[0]);
        let product_1 = MULTIPLIER[1] * u64::from(counter[2]);
        counter = [
            (product_1 >> 32) as u32 ^ counter[1] ^ key[0],
            product_1 as u32,
            (product_0 >> 32) as u32 ^ counter[3] ^ key[1],
            product_0 as u32,
        ];
    }
    counter
}

/// The `index`-th normal number (mean 0, standard deviation 1) of a key, by inversion, so that one uniform number gives
/// one normal number and a tensor's elements can be drawn in any order. Two elements share one counter.
///
/// Only + − × ÷, square root and the `libm` crate's ln are used: the same bits on every machine.
#[inline]
pub fn normal(key: PhiloxKey, index: u64) -> f64 {
    let block = index / 2;
    let words = key.words([block as u32, (block >> 32) as u32, 0, 0]);
    let (low, high) = if index.is_multiple_of(2) {
        (words[0], words[1])
    } else {
        (words[2], words[3])
    };
    // 52 bits, so that adding 1/2, which excludes 0 and 1, does not round.
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 12;
    const STEP: f64 = 1.0 / (1u64 << 52) as f64;
    inverse_normal((bits as f64 + 0.5) * STEP)
}

fn polynomial<const N: usize>(coefficients: [f64; N], x: f64) -> f64 {
    coefficients
        .iter()
        .rev()
        .fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// The quantile function of the normal distribution for `p` in (0, 1), to about 16 digits.
///
/// Source: Wichura 1988, algorithm AS 241 (PPND16): a rational function in the middle, two more in √(−ln p) for the
/// tails.
#[allow(clippy::excessive_precision)] // as published
pub fn inverse_normal(p: f64) -> f64 {
    let centred = p - 0.5;
    if centred.abs() <= 0.425 {
        let x = 0.180625 - centred * centred;
        let numerator = [
            3.387_132_872_796_366_608_0,
            1.331_416_678_917_843_774_5e2,
            1.971_590_950_306_551_442_7e3,
            1.373_169_376_550_946_112_5e4,
            4.592_195_393_154_987_145_7e4,
            6.726_577_092_700_870_085_3e4,
            3.343_057_558_358_812_810_5e4,
            2.509_080_928_730_122_672_7e3,
        ];
        let denominator = [
            1.0,
            4.231_333_070_160_091_125_2e1,
            6.871_870_074_920_579_083_0e2,
            5.394_196_021_424_751_107_7e3,
            2.121_379_430_158_659_586_7e4,
            3.930_789_580_009_271_061_0e4,
            2.872_908_573_572_194_267_4e4,
            5.226_495_278_852_854_561_0e3,
        ];
        return centred * polynomial(numerator, x) / polynomial(denominator, x);
    }
    let tail = if centred < 0.0 { p } else { 1.0 - p };
    let r = libm::sqrt(-libm::log(tail));
    let size = if r <= 5.0 {
        let x = r - 1.6;
        let numerator = [
            1.423_437_110_749_683_577_34,
            4.630_337_846_156_545_295_90,
            5.769_497_221_460_691_405_50,
            3.647_848_324_763_204_605_04,
            1.270_458_252_452_368_382_58,
            2.417_807_251_774_506_117_70e-1,
            2.272_384_498_926_918_458_33e-2,
            7.745_450_142_783_414_076_40e-4,
        ];
        let denominator = [
            1.0,
            2.053_191_626_637_758_821_87,
            1.676_384_830_183_803_849_40,
            6.897_673_349_851_000_045_50e-1,
            1.481_039_764_274_800_745_90e-1,
            1.519_866_656_361_645_719_66e-2,
            5.475_938_084_995_344_946_00e-4,
            1.050_750_071_644_416_843_24e-9,
        ];
        polynomial(numerator, x) / polynomial(denominator, x)
    } else {
        let x = r - 5.0;
        let numerator = [
            6.657_904_643_501_103_777_20,
            5.463_784_911_164_114_369_90,
            1.784_826_539_917_291_335_80,
            2.965_605_718_285_048_912_30e-1,
            2.653_218_952_657_612_309_30e-2,
            1.242_660_947_388_078_438_60e-3,
            2.711_555_568_743_487_578_15e-5,
            2.010_334_399_292_288_132_65e-7,
        ];
        let denominator = [
            1.0,
            5.998_322_065_558_879_376_90e-1,
            1.369_298_809_227_358_053_10e-1,
            1.487_536_129_085_061_485_25e-2,
            7.868_691_311_456_132_591_00e-4,
            1.846_318_317_510_054_681_80e-5,
            1.421_511_758_316_445_888_70e-7,
            2.044_263_103_389_939_785_64e-15,
        ];
        polynomial(numerator, x) / polynomial(denominator, x)
    };
    if centred < 0.0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' own test vectors (zeros, ones, digits of pi).
    #[test]
    fn philox_known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// Quantiles from another implementation (Python's `statistics.NormalDist().inv_cdf`), in all three branches.
    #[test]
    fn inverse_normal_against_published_quantiles() {
        for (p, expected) in QUANTILES {
            let got = inverse_normal(p);
            assert!(
                (got - expected).abs() <= 1e-14 * expected.abs().max(1.0),
                "{p}: {got} instead of {expected}"
            );
            // 1 - p loses digits of a small p.
            let (mirrored, lost) = (inverse_normal(1.0 - p), 1e-16 / p);
            assert!(
                (mirrored + expected).abs() <= lost.max(1e-14),
                "{p}: {mirrored} mirrored"
            );
        }
    }

    const QUANTILES: [(f64, f64); 5] = [
        (0.5, 0.0),
        (0.3, -0.524_400_512_708_041),
        (0.05, -1.644_853_626_951_472_2),
        (1e-9, -5.997_807_015_007_686),
        (1e-13, -7.348_796_102_800_677),
    ];

    #[test]
    fn keys_and_normals_are_pinned() {
        let key = PhiloxKey::derive(1234, "transformer.wte.weight");
        let bits: Vec<String> = [0, 1, 2, 1 << 40]
            .map(|i| format!("{:016x}", normal(key, i).to_bits()))
            .to_vec();
        assert_eq!(
            format!("{key:?} {}", bits.join(" ")),
            "PhiloxKey([238988147, 2578913983]) bfd7ad43f317739b 3ff611e537ecd423 bfeebe26b59340a3 bfa0081e6468d9a5"
        );
        assert_ne!(key, PhiloxKey::derive(1235, "transformer.wte.weight"));
        assert_ne!(key, PhiloxKey::derive(1234, "transformer.wpe.weight"));
    }

    #[test]
    fn normals_have_the_moments_of_a_normal_distribution() {
        let key = PhiloxKey::derive(7, "moments");
        let count = 200_000u64;
        let values: Vec<f64> = (0..count).map(|i| normal(key, i)).collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let square = values.iter().map(|x| x * x).sum::<f64>() / count as f64;
        let fourth = values.iter().map(|x| x.powi(4)).sum::<f64>() / count as f64;
        // Five standard errors of each.
        assert!(mean.abs() < 0.0112 && (square - 1.0).abs() < 0.0159 && (fourth - 3.0).abs() < 0.11);
    }
}
