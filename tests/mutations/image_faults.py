"""Mutations of what is said and done when what an image is to be made of is at fault."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

BUILDER = "tests/agent/image/test_builder.py::"
CONTEXT = "tests/sdk/dockerfile/test_context.py::"
DOCKERFILE = "tests/sdk/test_image_dockerfile.py::"
EROFS = "tests/kernel/test_erofs.py::"
MOUNT = "tests/sdk/test_mount.py::"
PARSE = "tests/sdk/dockerfile/test_parse.py::"
REFUSAL = "tests/agent/image/oci/test_refusal.py::"

IMAGE_FAULTS = (
    Mutation(
        "image-unknown-package",
        "unknown package",
        "what the installer said is not in the error",
        (Change("src/squall/agent/image/making.py", '{tail}" if tail else ""', '" if tail else ""'),),
        {f"{BUILDER}test_failed_step_says_what_it_printed_and_makes_no_layer": '"line of 1" in failed.value.message'},
    ),
    Mutation(
        "image-unknown-package-step",
        "unknown package",
        "the error does not say which step it was",
        (
            Change(
                "src/squall/agent/image/making.py",
                'what = f"step {self.event.step} of {self.event.steps} ({self.event.text})"',
                'what = "a step"',
            ),
        ),
        {f"{BUILDER}test_failed_step_says_what_it_printed_and_makes_no_layer": '"step 2 of 2 (run_commands make it)"'},
    ),
    Mutation(
        "image-no-network",
        "no network",
        "a step that found none is told as one that names no package",
        (
            Change(
                "src/squall/agent/image/step_container.py",
                "if absent := unreached(output.tail):",
                'if absent := unreached(""):',
            ),
        ),
        {f"{BUILDER}test_step_that_found_no_network_is_told_so": "exit status 100: no network"},
    ),
    Mutation(
        "image-no-network-registry",
        "no network",
        "a registry that cannot be reached is told in the words of skopeo alone",
        (
            Change(
                "src/squall/agent/image/oci/refusal.py",
                'r"no such host|connection refused|',
                'r"connection refused|',
            ),
        ),
        {
            f"{REFUSAL}test_words_of_skopeo_are_told_apart"
            "[lookup r.test on 192.0.2.1:53: no such host-unreachable-no network: r.test cannot be reached]": (
                "found.kind == kind"
            ),
        },
    ),
    Mutation(
        "image-dockerfile-line",
        "Dockerfile syntax error",
        "the line named is the last one of an instruction",
        (Change("src/squall/sdk/dockerfile/lines.py", "self._at(logical, number)", "self._at(logical)"),),
        {
            f"{PARSE}test_lines_that_are_wrong_say_what_to_do"
            "[lines0-dockerfile_commands, line 2: FROM has no place here]": "assert message in lines_refusal(*lines)",
            f"{PARSE}test_files_that_are_wrong_say_what_to_do"
            "[RUN x-line 1: RUN before the first FROM, where only ARG may be]": "assert message in refusal(content)",
        },
    ),
    Mutation(
        "image-dockerfile-nearest",
        "Dockerfile syntax error",
        "the nearest instruction is not suggested",
        (Change("src/squall/sdk/dockerfile/flags.py", '"; did you mean {prefix}{found[0]}?"', '""'),),
        {f"{DOCKERFILE}test_what_cannot_be_had_is_refused_with_its_line[FORM x-did you mean FROM]": "says in said"},
    ),
    Mutation(
        "image-path-missing",
        "path does not exist",
        "a path of COPY that is not there is not called missing",
        (
            Change(
                "src/squall/sdk/dockerfile/tree.py",
                "            if not os.path.lexists(local):\n",
                "            if not local:\n",
            ),
        ),
        {
            f"{CONTEXT}test_sources_that_cannot_be_copied_are_named_with_their_line"
            "[COPY missing /opt-ignored0-missing is not in the context]": "assert message in str(caught.value)",
        },
    ),
    Mutation(
        "image-path-leaves-context",
        "path leaves the context",
        "a link is followed wherever it leads",
        (
            Change(
                "src/squall/sdk/dockerfile/tree.py",
                "            if os.path.islink(local):\n",
                "            if os.path.islink(local) and not os.path.exists(local):\n",
            ),
        ),
        {
            f"{CONTEXT}test_links_that_lead_nowhere_are_said[../secret-link is a link that leads out of the context]": (
                "pytest.raises(DockerfileError, match=message)"
            ),
        },
    ),
    Mutation(
        "image-path-leaves-context-word",
        "path leaves the context",
        "nobody is told what to do with a path outside of it",
        (
            Change(
                "src/squall/sdk/dockerfile/context.py",
                'if path.split("/")[0] == "..":\n            raise self',
                'if path == "..":\n            raise self',
            ),
        ),
        {
            f"{CONTEXT}test_sources_that_cannot_be_copied_are_named_with_their_line"
            "[COPY ../secret /opt-ignored3-../secret is outside the context; give a context_dir=]": (
                "assert message in str(caught.value)"
            ),
        },
    ),
    Mutation(
        "image-large-context",
        "2 GB context",
        "nobody is told",
        (
            Change(
                "src/squall/sdk/_mount.py",
                "    if total < LARGE_BYTES:\n",
                "    if total > LARGE_BYTES:\n",
            ),
        ),
        {
            f"{MOUNT}test_very_large_folder_is_told_with_its_biggest_parts": "pytest.warns(UserWarning",
            f"{DOCKERFILE}test_much_to_send_is_said_with_its_biggest_folders": "UserWarning, match=",
        },
    ),
    Mutation(
        "image-large-context-folders",
        "2 GB context",
        "the smallest folders are named",
        (
            Change(
                "src/squall/sdk/_mount.py",
                "key=lambda folder: -folders[folder])[:5]",
                "key=lambda folder: folders[folder])[:5]",
            ),
        ),
        {f"{MOUNT}test_very_large_folder_is_told_with_its_biggest_parts": "data/raw (3 MiB), src (0 MiB)"},
    ),
    Mutation(
        "image-changed-upload",
        "file changed during upload",
        "what is read is sent as what was hashed",
        (
            Change(
                "src/squall/sdk/_mount.py",
                "    if sha256_hex(data) != sha256:\n",
                "    if len(data) != part.size_bytes:\n",
            ),
        ),
        {f"{MOUNT}test_file_that_changes_while_it_is_sent_is_told[other-10]": "it changed while it was read"},
    ),
    Mutation(
        "image-not-utf8",
        "non-UTF-8 names",
        "a name that no manifest can hold is not told before",
        (Change("src/squall/sdk/_mount.py", "        _check_name(file.remote_path, what)\n", ""),),
        {f"{MOUNT}test_name_that_is_not_utf8_is_told": "pytest.raises(InvalidError"},
    ),
    Mutation(
        "image-not-utf8-context",
        "non-UTF-8 names",
        "nor one in the context of a Dockerfile",
        (
            Change(
                "src/squall/sdk/dockerfile/tree.py",
                "            name.encode()\n",
                '            name.encode(errors="surrogateescape")\n',
            ),
        ),
        {f"{CONTEXT}test_names_that_are_no_text_are_said": "pytest.raises(DockerfileError"},
    ),
    Mutation(
        "image-link-loop",
        "symlink loops",
        "a link back into the tree above it is entered",
        (
            Change(
                "src/squall/sdk/_mount.py",
                "            if real not in above and not is_left_out:\n",
                "            if not is_left_out:\n",
            ),
        ),
        {f"{MOUNT}test_links_in_circles_and_to_nothing_are_left_out": 'ship(tmp_path) == ["kept"]'},
    ),
    Mutation(
        "image-link-loop-context",
        "symlink loops",
        "a link of a context that leads in circles is not called so",
        (Change("src/squall/sdk/dockerfile/tree.py", "is a link that leads in circles", "is not there"),),
        {
            f"{CONTEXT}test_links_that_lead_nowhere_are_said[link-link is a link that leads in circles]": (
                "pytest.raises(DockerfileError, match=message)"
            ),
        },
    ),
    Mutation(
        "image-no-python",
        "image with no Python",
        "a container is started all the same",
        (
            Change(
                "src/squall/agent/outfit.py",
                "if not image.config.python_path:",
                "if image.config.python_path is None:",
            ),
        ),
        {
            "tests/agent/test_image_use.py::test_image_without_a_python_is_told_and_starts_nothing": (
                "pytest.raises(PlatformError"
            ),
        },
    ),
    Mutation(
        "image-no-tls",
        "registry without TLS",
        "it is used without a word",
        (
            Change(
                "src/squall/agent/image/oci/pull.py",
                'arguments = ("--remove-signatures", ',
                'arguments = ("--src-tls-verify=false", "--remove-signatures", ',
            ),
        ),
        {
            "tests/kernel/test_pull.py::test_registry_without_tls_is_refused_with_the_lines_that_allow_it": (
                "message = refusal("
            ),
        },
    ),
    Mutation(
        "image-no-tls-word",
        "registry without TLS",
        "nobody is told how to allow it",
        (Change("src/squall/agent/image/oci/refusal.py", ", insecure = true in ", " in "),),
        {
            f"{REFUSAL}test_words_of_skopeo_are_told_apart"
            "[Get https://r.test/v2/: http: server gave HTTP response to HTTPS client-no_tls-insecure = true]": (
                "assert remedy in str(found)"
            ),
        },
    ),
    Mutation(
        "image-disk-full",
        "disk full while packing",
        "space is taken as it is written to",
        (
            Change(
                "src/squall/erofs/writer.py",
                "        os.posix_fallocate(descriptor, 0, placement.blocks * BLOCK_BYTES)\n",
                "        os.ftruncate(descriptor, placement.blocks * BLOCK_BYTES)\n",
            ),
        ),
        {f"{EROFS}test_full_disk_is_found_out_before_anything_is_written[1000-3000]": "assert code == 1"},
    ),
    Mutation(
        "image-disk-full-word",
        "disk full while packing",
        "nobody is told what to do",
        (Change("src/squall/erofs/writer.py", 'MB); free "\n        "some space there"', 'MB)"'),),
        {
            f"{EROFS}test_full_disk_is_found_out_before_anything_is_written[1-3145728]": (
                'assert "free some space there" in said'
            ),
        },
    ),
)
