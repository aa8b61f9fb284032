"""Train LoRA by TRL's SFTTrainer (in a clone: pip install -e ".[trl]")."""

from common import arguments, conversations, leave, lora, training
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

given = arguments()
set_seed(given.seed)
tokenizer = AutoTokenizer.from_pretrained(
    given.model, local_files_only=True, trust_remote_code=False
)
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(
        given.model, dtype="float32", local_files_only=True, trust_remote_code=False
    ),
    args=SFTConfig(max_length=given.max_length, **training(given)),
    train_dataset=Dataset.from_list(conversations(given.train, tokenizer)),
    processing_class=tokenizer,
    peft_config=lora(given),
)
trainer.train()
leave(trainer, given)
