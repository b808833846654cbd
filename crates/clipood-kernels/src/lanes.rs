//! Vectors of float32 in the instruction set of the CPU at hand, for loops that a compiler does not turn into good vector
//! code alone.

/// Vectors of one instruction set, and the operations on them. Addition and multiplication round as IEEE says, so that
/// only [`Lanes::mul_add`] may differ between instruction sets: fused everywhere except in plain code for a CPU without it.
pub(crate) trait Lanes: Copy {
    /// A vector.
    type Vector: Copy;
    /// Values in a vector.
    const COUNT: usize;
    /// Vectors that the CPU's registers hold.
    const REGISTERS: usize;
    /// The first values of `from`, which has at least one vector.
    fn load(self, from: &[f32]) -> Self::Vector;
    /// Writes to the first values of `to`, which has room for a vector.
    fn store(self, vector: Self::Vector, to: &mut [f32]);
    /// A vector of one value.
    fn splat(self, value: f32) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a b + c`.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Negative values become 0; a NaN stays one.
    fn relu(self, a: Self::Vector) -> Self::Vector;
    /// Asks for the cache line of the first value of `from`, which is read soon; nothing where there is no instruction
    /// for it.
    fn prefetch(self, from: &[f32]);
}

/// A loop over vectors of any instruction set. Implementations are `#[inline(always)]`, so that they are compiled for it.
pub(crate) trait Work {
    /// Runs it.
    fn run<L: Lanes>(self, lanes: L);
}

/// Instruction sets that this crate has vectors of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Instructions {
    /// 16 values, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    /// 8 values, 16 registers, with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// What the compiler makes of arrays of four values with the instructions that every CPU of the architecture has.
    Plain,
    /// Arrays of as many values as a vector of AVX-512.
    #[cfg(test)]
    WideArrays,
    /// Arrays of as many values as a vector of NEON, with its number of registers.
    #[cfg(test)]
    NeonArrays,
}

/// Arrays for the vectors of every CPU of the architecture.
type Plain = Arrays<
    4,
    {
        if cfg!(target_arch = "aarch64") {
            32
        } else {
            16
        }
    },
>;

impl Instructions {
    /// Every set that this CPU has, the best first; [`Instructions::Plain`] is the last.
    pub fn on_this_cpu() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(pulp::x86::V4::try_new().map(Self::Avx512));
            found.extend(pulp::x86::V3::try_new().map(Self::Avx2));
        }
        found.push(Self::Plain);
        found
    }

    /// Every set that this CPU has, and arrays in the shapes of the sets that it may lack.
    #[cfg(test)]
    pub fn of_every_shape() -> Vec<Self> {
        let mut sets = Self::on_this_cpu();
        sets.extend([Self::WideArrays, Self::NeonArrays]);
        sets
    }

    /// The best set of this CPU, or the best one that `CLIPOOD_CPU` allows (`avx2` or `plain`; anything else
    /// allows all), which measures on one machine what another one would reach.
    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<Instructions> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| {
            let most = std::env::var("CLIPOOD_CPU").unwrap_or_default();
            let allowed = |set: &Self| match most.as_str() {
                "plain" => matches!(set, Self::Plain),
                "avx2" => set.lanes() <= 8,
                _ => true,
            };
            let sets = Self::on_this_cpu();
            sets.into_iter().find(allowed).unwrap_or(Self::Plain)
        })
    }

    /// Whether `CLIPOOD_CPU` holds back instructions that the CPU has.
    pub fn are_held_back() -> bool {
        let best = Self::on_this_cpu().first().map(|set| set.lanes());
        best.is_some_and(|lanes| lanes > Self::best().lanes())
    }

    /// This set, or one of shorter vectors that fill `columns` without a rest; `None` where even the shortest do not.
    pub fn for_columns(self, columns: usize) -> Option<Self> {
        let fits = |set: &Self| set.lanes() <= self.lanes() && columns.is_multiple_of(set.lanes());
        Self::on_this_cpu().into_iter().find(fits)
    }

    /// Values in a vector.
    pub fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 16,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 8,
            Self::Plain => Plain::COUNT,
            #[cfg(test)]
            Self::WideArrays => 16,
            #[cfg(test)]
            Self::NeonArrays => 4,
        }
    }

    /// Vectors that the registers hold.
    pub fn registers(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 32,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 16,
            Self::Plain => Plain::REGISTERS,
            #[cfg(test)]
            Self::WideArrays | Self::NeonArrays => 32,
        }
    }

    /// Runs `work` with these instructions.
    pub fn run(self, work: impl Work) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(set) => pulp::Simd::vectorize(set, OnPulp(work)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(set) => pulp::Simd::vectorize(set, OnPulp(work)),
            Self::Plain => work.run(Arrays::<{ Plain::COUNT }, { Plain::REGISTERS }>),
            #[cfg(test)]
            Self::WideArrays => work.run(Arrays::<16, 32>),
            #[cfg(test)]
            Self::NeonArrays => work.run(Arrays::<4, 32>),
        }
    }
}

/// Work as `pulp` takes it.
#[cfg(target_arch = "x86_64")]
struct OnPulp<W>(W);

#[cfg(target_arch = "x86_64")]
impl<W: Work> pulp::WithSimd for OnPulp<W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        self.0.run(Pulp(simd));
    }
}

/// Vectors of `pulp`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pulp<S>(S);

#[cfg(target_arch = "x86_64")]
impl<S: pulp::Simd> Lanes for Pulp<S> {
    type Vector = S::f32s;
    const COUNT: usize = S::F32_LANES;
    const REGISTERS: usize = S::REGISTER_COUNT;

    #[inline(always)]
    fn load(self, from: &[f32]) -> S::f32s {
        S::as_simd_f32s(&from[..S::F32_LANES]).0[0]
    }

    #[inline(always)]
    fn store(self, vector: S::f32s, to: &mut [f32]) {
        S::as_mut_simd_f32s(&mut to[..S::F32_LANES]).0[0] = vector;
    }

    #[inline(always)]
    fn splat(self, value: f32) -> S::f32s {
        self.0.splat_f32s(value)
    }

    #[inline(always)]
    fn add(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.add_f32s(a, b)
    }

    #[inline(always)]
    fn sub(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.sub_f32s(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        self.0.mul_add_f32s(a, b, c)
    }

    #[inline(always)]
    fn relu(self, a: S::f32s) -> S::f32s {
        let zero = self.0.splat_f32s(0.0);
        // A comparison with a NaN is false.
        let negative = self.0.less_than_f32s(a, zero);
        self.0.select_f32s(negative, zero, a)
    }

    #[inline(always)]
    fn prefetch(self, from: &[f32]) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 CPU has SSE, and a prefetch of any address has no effect that a program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast()) };
    }
}

/// Arrays of `N` values, which compilers turn into vectors of SSE2 or NEON, for a CPU with `R` registers.
#[derive(Clone, Copy)]
struct Arrays<const N: usize, const R: usize>;

impl<const N: usize, const R: usize> Arrays<N, R> {
    #[inline(always)]
    fn each(mut a: [f32; N], b: [f32; N], of: impl Fn(f32, f32) -> f32) -> [f32; N] {
        for (a, b) in a.iter_mut().zip(b) {
            *a = of(*a, b);
        }
        a
    }
}

impl<const N: usize, const R: usize> Lanes for Arrays<N, R> {
    type Vector = [f32; N];
    const COUNT: usize = N;
    const REGISTERS: usize = R;

    #[inline(always)]
    fn load(self, from: &[f32]) -> [f32; N] {
        let mut vector = [0.0; N];
        vector.copy_from_slice(&from[..N]);
        vector
    }

    #[inline(always)]
    fn store(self, vector: [f32; N], to: &mut [f32]) {
        to[..N].copy_from_slice(&vector);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; N] {
        [value; N]
    }

    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        Self::each(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        Self::each(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; N], b: [f32; N], mut c: [f32; N]) -> [f32; N] {
        for ((c, a), b) in c.iter_mut().zip(a).zip(b) {
            // Without an instruction for it, a fused product is a call of the C library.
            let fused = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
            *c = if fused { a.mul_add(b, *c) } else { a * b + *c };
        }
        c
    }

    #[inline(always)]
    fn relu(self, mut a: [f32; N]) -> [f32; N] {
        for a in &mut a {
            *a = if *a < 0.0 { 0.0 } else { *a };
        }
        a
    }

    #[inline(always)]
    fn prefetch(self, _from: &[f32]) {}
}
