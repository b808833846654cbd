//! Which architecture that is no CLIP of this crate the names of tensors belong to, for messages.

/// What a file of tensors with these names seems to be, in words; `None` for names that tell nothing.
pub(super) fn kind<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    let starts = |prefix: &str| names.clone().any(|name| name.starts_with(prefix));
    let holds = |part: &str| names.clone().any(|name| name.contains(part));
    // The first rule that fits decides, so parts that others have as well come later.
    let rules: [(bool, &str); 12] = [
        (
            holds(".lora_A.") || holds(".lora_B.") || holds("lora_down"),
            "the LoRA adapters of a model, which must be merged into it first",
        ),
        (
            starts("ctx") || starts("prompt_learner."),
            "a prompt learner, which `clipood prompt import` reads",
        ),
        (
            starts("vision_model.head.") || starts("visual.trunk.attn_pool."),
            "a SigLIP, whose towers and tokenizer are others than CLIP's",
        ),
        (
            starts("visual.trunk.patch_embed.backbone.") || starts("visual.trunk.stages."),
            "a model of open_clip with a convolutional tower of timm, such as MobileCLIP or ConvNeXt",
        ),
        (
            starts("visual.trunk."),
            "a model of open_clip with an image tower of timm, such as EVA-CLIP",
        ),
        (
            starts("visual.blocks.") || starts("visual.rope.") || starts("visual.patch_embed."),
            "an EVA-CLIP, whose image tower is another than CLIP's",
        ),
        (
            starts("visual_encoder.") || starts("text_decoder."),
            "a BLIP or CoCa, which is more than two towers",
        ),
        (
            starts("transformer.embeddings.") || starts("text_model.embeddings.LayerNorm."),
            "a model whose text tower is a BERT or XLM-RoBERTa",
        ),
        (
            starts("visual.") && !starts("token_embedding.") && !starts("transformer."),
            "an image tower alone (such as CLIPVisionModelWithProjection), without the text tower that class names need",
        ),
        (
            starts("token_embedding.") && !starts("visual."),
            "a text tower alone (such as CLIPTextModelWithProjection), without an image tower",
        ),
        (
            starts("down_blocks.") || starts("first_stage_model."),
            "a diffusion model",
        ),
        (
            starts("blocks.") || starts("cls_token") || starts("layer1."),
            "an image classifier, not a CLIP",
        ),
    ];
    let found = rules.into_iter().find(|(fits, _)| *fits);
    found.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names from published checkpoints, as they are after the conversion to OpenAI's names.
    #[test]
    fn other_architectures_are_known_by_their_names() {
        let cases: [(&[&str], &str); 9] = [
            (
                &[
                    "logit_bias",
                    "vision_model.head.probe",
                    "text_model.head.weight",
                ],
                "SigLIP",
            ),
            (&["visual.trunk.attn_pool.latent", "logit_bias"], "SigLIP"),
            (
                &[
                    "visual.cls_token",
                    "visual.blocks.0.attn.q_bias",
                    "token_embedding.weight",
                ],
                "EVA-CLIP",
            ),
            (
                &[
                    "visual.trunk.blocks.0.attn.qkv.weight",
                    "token_embedding.weight",
                ],
                "timm",
            ),
            (
                &[
                    "visual.proj",
                    "transformer.embeddings.word_embeddings.weight",
                ],
                "XLM-RoBERTa",
            ),
            (
                &["visual.class_embedding", "visual.proj"],
                "CLIPVisionModelWithProjection",
            ),
            (
                &["token_embedding.weight", "text_projection"],
                "CLIPTextModelWithProjection",
            ),
            (&["ctx", "token_prefix", "token_suffix"], "prompt import"),
            (
                &["vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"],
                "LoRA",
            ),
        ];
        for (names, word) in cases {
            let found = kind(names.iter().copied()).unwrap_or_default();
            assert!(found.contains(word), "{names:?}: {found}");
        }
        assert_eq!(kind(["a", "b"].into_iter()), None);
    }
}
