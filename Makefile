# `make train`: the main job on embedded images, from nothing to a SavedModel.
# `make test`: all checks but the slow tests, which are `make slow`. Each makes .venv first where it is missing or
# older than setup.cfg.
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/photos
MODEL := exports/photos
# The fast tests compile for longer than they compute.
UNOPTIMISED := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

.PHONY: train test slow format

train: .venv/installed
	$(BIN)/python recipes/train_cifar.py --dataset photos --likelihood logistic_mixture --batch-size 16 --steps 1250 \
		--predictor after --predictor-steps 300 --run-dir $(RUN)
	rm -rf $(MODEL)
	$(BIN)/python export/export_image.py $(RUN) $(MODEL)
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/saved_model_cli show --dir $(MODEL)/1 --tag_set serve

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -q -n 2 -m "not slow"
	KERAS_BACKEND=jax $(UNOPTIMISED) $(BIN)/python -m pytest -q -n 2 -m "not slow"

slow: .venv/installed
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -q -n 2 --dist loadgroup -m slow
	KERAS_BACKEND=jax $(BIN)/python -m pytest -q -n 2 --dist loadgroup -m slow

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
