"""The results page says what the committed result files say."""

import subprocess
import sys


def test_results_page_is_what_the_files_say(repository):
    command = [sys.executable, str(repository / "scripts" / "results_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
