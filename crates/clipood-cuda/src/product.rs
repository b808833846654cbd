//! Matrix products by cuBLASLt: bias, residual and ReLU inside the product, one plan kept for each shape.
//!
//! All matrices are row-major. cuBLASLt's are column-major: what it takes for the matrix `[columns, rows]` is our
//! `[rows, columns]`, so it is told to compute `output' = weight' input'`; its A is our weight, its B our input.

mod shape;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::sys::{
    cublasComputeType_t as Compute, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cudaDataType as Data,
};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUevent_flags;

use crate::error::{CudaError, Result};
use crate::libraries;
use crate::memory::Arena;
use crate::precision::Precision;

pub use self::shape::{Epilogue, Matrix, Operands, Shape};

/// Bytes that the library may use while it works.
pub const WORKSPACE: usize = 64 << 20;

/// Candidates that are timed at most.
const CANDIDATES: usize = 8;

/// The proposal taken for products of 16 bits that add a residual, if the choice is fixed: the library's first ones read the
/// residual slowly (20 us instead of 14 for `[7597, 512] x [512, 512]` on an H200 with cuBLASLt 13.1).
const RESIDUAL_PROPOSAL: usize = 2;

/// How one of the library's proposals for a shape is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A fixed one: equal bits in every process on one GPU model and library version. For training.
    Fixed,
    /// The fastest of a few, timed once on the real operands, which repeats products that add to their own output: what the
    /// first pass through a model computes is wrong. For inference.
    Timed,
}

/// Plans by shape, on one stream.
pub struct Products {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: Arena,
    choice: Choice,
    plans: HashMap<Shape, Plan>,
    /// What was chosen, for all streams of a model.
    chosen: Arc<Mutex<HashMap<Shape, Algorithm>>>,
}

/// The library's description of an algorithm: plain data.
#[derive(Clone, Copy)]
struct Algorithm(sys::cublasLtMatmulAlgo_t);

/// Handles of the library for one shape.
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    /// Weight, input, residual and output.
    layouts: [sys::cublasLtMatrixLayout_t; 4],
    algorithm: Option<Algorithm>,
}

// SAFETY: the handles are used by one thread at a time (`&mut self`), and the library does not tie them to the thread that
// made them.
unsafe impl Send for Products {}

impl Products {
    /// No plans yet.
    ///
    /// # Errors
    /// cuBLASLt is missing, or the GPU has no memory for its workspace.
    pub fn new(stream: &Arc<CudaStream>, choice: Choice) -> Result<Self> {
        libraries::load_cublaslt()?;
        stream.context().bind_to_thread()?;
        Ok(Self {
            handle: result::create_handle()?,
            stream: stream.clone(),
            workspace: Arena::new(stream, WORKSPACE)?,
            choice,
            plans: HashMap::new(),
            chosen: Arc::default(),
        })
    }

    /// The same for another stream, with what was and will be chosen. Streams that run at once must not share a workspace.
    ///
    /// # Errors
    /// As [`Products::new`].
    pub fn beside(&self, stream: &Arc<CudaStream>) -> Result<Self> {
        let mut other = Self::new(stream, self.choice)?;
        other.chosen = self.chosen.clone();
        Ok(other)
    }

    /// Enqueues a product. The first one of a shape may time candidates, which must not happen while a graph is captured.
    ///
    /// # Errors
    /// The library has no algorithm for the shape, or the GPU fails.
    pub fn run(&mut self, shape: &Shape, operands: &Operands) -> Result<()> {
        if !self.plans.contains_key(shape) {
            let plan = self.plan(shape, operands)?;
            self.plans.insert(*shape, plan);
        }
        let plan = &self.plans[shape];
        self.multiply(plan, shape, operands, plan.algorithm.as_ref())
            .map_err(|error| refused(shape, &error))
    }

    fn multiply(
        &self,
        plan: &Plan,
        shape: &Shape,
        operands: &Operands,
        algorithm: Option<&Algorithm>,
    ) -> std::result::Result<(), result::CublasError> {
        if shape.epilogue != Epilogue::None {
            set(
                plan.description,
                Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                &operands.bias,
            )?;
        }
        let beta = if shape.residual_pitch.is_some() {
            1f32
        } else {
            0f32
        };
        let residual = match shape.residual_pitch {
            Some(_) => operands.residual,
            None => operands.output,
        };
        let [a, b, c, d] = plan.layouts;
        let algorithm = algorithm.map_or(std::ptr::null(), |algorithm| &raw const algorithm.0);
        // SAFETY: the handles are alive; whoever planned the pass gives operands of the shape's sizes, which outlive the
        // stream's work.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const operands.scale).cast(),
                (&raw const beta).cast(),
                operands.weight as *const c_void,
                a,
                operands.input as *const c_void,
                b,
                residual as *const c_void,
                c,
                operands.output as *mut c_void,
                d,
                algorithm,
                self.workspace.address() as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
    }

    fn plan(&self, shape: &Shape, operands: &Operands) -> Result<Plan> {
        let mut plan = Plan::new(shape)?;
        let known = self
            .chosen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(shape)
            .copied();
        let algorithm = match known {
            Some(algorithm) => algorithm,
            None => self.choose(&plan, shape, operands)?,
        };
        plan.algorithm = Some(algorithm);
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.insert(*shape, algorithm);
        Ok(plan)
    }

    fn choose(&self, plan: &Plan, shape: &Shape, operands: &Operands) -> Result<Algorithm> {
        let proposal = match shape.residual_pitch {
            Some(_) if shape.precision.bytes() == 2 => RESIDUAL_PROPOSAL,
            _ => 0,
        };
        let wanted = match self.choice {
            Choice::Fixed => proposal + 1,
            Choice::Timed => CANDIDATES,
        };
        let found = self
            .proposals(plan, wanted)
            .map_err(|error| refused(shape, &error))?;
        let fixed = *found.last().ok_or_else(|| CudaError::Product {
            status: "no algorithm".into(),
            product: format!("{shape:?}"),
        })?;
        if self.choice == Choice::Fixed {
            return Ok(fixed);
        }
        let mut best: Option<(f32, Algorithm)> = None;
        for algorithm in &found {
            // A proposal that fails is one that this GPU cannot run.
            let Ok(time) = self.time(plan, shape, operands, algorithm) else {
                continue;
            };
            if best.is_none_or(|(least, _)| time < least) {
                best = Some((time, *algorithm));
            }
        }
        Ok(best.map_or(fixed, |(_, algorithm)| algorithm))
    }

    fn proposals(
        &self,
        plan: &Plan,
        wanted: usize,
    ) -> std::result::Result<Vec<Algorithm>, result::CublasError> {
        // SAFETY: a plain structure of numbers, for which zeros are values.
        let empty = unsafe { std::mem::zeroed::<sys::cublasLtMatmulHeuristicResult_t>() };
        let mut found = vec![empty; wanted];
        let mut count = 0;
        let [a, b, c, d] = plan.layouts;
        // Partial sums are added up in float32, and never in place, where their order would vary.
        let reduction =
            sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let preference = result::create_matmul_pref()?;
        // SAFETY: the handles are alive, the attributes have the types that the library documents, `found` has `wanted` places.
        let status = unsafe {
            prefer(
                preference,
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                &WORKSPACE,
            )
            .and_then(|()| {
                prefer(
                    preference,
                    Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                    &reduction,
                )
            })
            .and_then(|()| {
                let places = found.as_mut_ptr();
                let wanted = wanted as i32;
                sys::cublasLtMatmulAlgoGetHeuristic(
                    self.handle,
                    plan.description,
                    a,
                    b,
                    c,
                    d,
                    preference,
                    wanted,
                    places,
                    &mut count,
                )
                .result()
            })
        };
        // SAFETY: made above.
        unsafe { result::destroy_matmul_pref(preference)? };
        status?;
        found.truncate(usize::try_from(count).unwrap_or(0));
        found.retain(|candidate| candidate.state.result().is_ok());
        Ok(found
            .into_iter()
            .map(|candidate| Algorithm(candidate.algo))
            .collect())
    }

    /// Milliseconds of one product, of three in a row after one to warm up.
    fn time(
        &self,
        plan: &Plan,
        shape: &Shape,
        operands: &Operands,
        algorithm: &Algorithm,
    ) -> Result<f32> {
        const ROUNDS: usize = 3;
        self.multiply(plan, shape, operands, Some(algorithm))?;
        let start = self
            .stream
            .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        for _ in 0..ROUNDS {
            self.multiply(plan, shape, operands, Some(algorithm))?;
        }
        let end = self
            .stream
            .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
        Ok(start.elapsed_ms(&end)? / ROUNDS as f32)
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // Work that still uses the handle's kernels ends first; nothing useful can be done about an error here.
        let _ = self.stream.synchronize();
        // SAFETY: made in `new`.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Plan {
    fn new(shape: &Shape) -> Result<Self> {
        let (element, compute) = match shape.precision {
            Precision::F32 => (Data::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F),
            Precision::Tf32 => (Data::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F_FAST_TF32),
            Precision::F16 => (Data::CUDA_R_16F, Compute::CUBLAS_COMPUTE_32F),
            Precision::Bf16 => (Data::CUDA_R_16BF, Compute::CUBLAS_COMPUTE_32F),
        };
        let written = if shape.wide {
            Data::CUDA_R_32F
        } else {
            element
        };
        let (m, n, k) = (shape.columns as u64, shape.rows as u64, shape.depth as u64);
        // As the library sees what is stored: our columns are its rows.
        let stored = |matrix: Matrix, rows: u64, columns: u64| match matrix.transposed {
            true => result::create_matrix_layout(element, rows, columns, matrix.pitch as i64),
            false => result::create_matrix_layout(element, columns, rows, matrix.pitch as i64),
        };
        let residual_pitch = shape.residual_pitch.unwrap_or(shape.output_pitch);
        let layouts = [
            stored(shape.weight, k, m)?,
            stored(shape.input, n, k)?,
            result::create_matrix_layout(written, m, n, residual_pitch as i64)?,
            result::create_matrix_layout(written, m, n, shape.output_pitch as i64)?,
        ];
        let plan = Self {
            description: result::create_matmul_desc(compute, Data::CUDA_R_32F)?,
            layouts,
            algorithm: None,
        };
        // cublasOperation_t, which the bindings leave out: 0 for N, 1 for T.
        set(
            plan.description,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &i32::from(shape.weight.transposed),
        )?;
        set(
            plan.description,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &i32::from(shape.input.transposed),
        )?;
        let epilogue = match shape.epilogue {
            Epilogue::None => None,
            Epilogue::Bias => Some(sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS),
            Epilogue::BiasRelu => Some(sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_RELU_BIAS),
        };
        if let Some(epilogue) = epilogue {
            // Before the library is asked for algorithms; the address of the bias may change after.
            set(
                plan.description,
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                &epilogue,
            )?;
        }
        Ok(plan)
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made in `new`. Nothing useful can be done about an error here.
        unsafe {
            let _ = result::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

fn refused(shape: &Shape, result::CublasError(status): &result::CublasError) -> CudaError {
    if *status == sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED {
        return CudaError::OutOfMemory { bytes: 0 };
    }
    CudaError::Product {
        status: format!("{status:?}"),
        product: format!("{shape:?}"),
    }
}

fn set<T>(
    description: sys::cublasLtMatmulDesc_t,
    attribute: Attribute,
    value: &T,
) -> std::result::Result<(), result::CublasError> {
    // SAFETY: the description is alive, and the caller gives the type that the library documents for the attribute.
    unsafe {
        result::set_matmul_desc_attribute(
            description,
            attribute,
            std::ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
}

/// # Safety
/// The preference is alive, and the value has the type that the library documents for the attribute.
unsafe fn prefer<T>(
    preference: sys::cublasLtMatmulPreference_t,
    attribute: Preference,
    value: &T,
) -> std::result::Result<(), result::CublasError> {
    // SAFETY: as the caller promises.
    unsafe {
        result::set_matmul_pref_attribute(
            preference,
            attribute,
            std::ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
}
