# Two commands: `make demo` and `make test`. Each sets up what it needs in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := hatch_build.py src/facenet/faces/kernels.c src/facenet/faces/glance.c src/facenet/faces/glance_rnet.c

.PHONY: demo test check figures clean

demo: $(VENV)/.installed
	$(BIN)/facenet identify examples/known examples/photos --draw out/demo
	@echo "The annotated copies are in out/demo; look at out/demo/group.jpg"

test: $(VENV)/.developing
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

figures: $(VENV)/.developing
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/figures

clean:
	rm -rf $(VENV) out build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[openvino]"
	@touch $@

$(VENV)/.developing: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.installed
