"""MoE Workbench for a class: one server per student under JupyterHub, capped runs, a roster for the instructors.

Copy it, set the names, and start `jupyterhub -f jupyterhub_config.py`. Everybody gets JupyterLab with the extension;
what a student starts there is a process with the caps below. The roster at `/services/class-roster/` shows counts,
never text. For real log-ins take another authenticator and spawner; the rest stays. Addresses stay on this machine
until you set `bind_url`, which needs TLS for a network that others use.
"""

import sys

INSTRUCTORS = {"teacher"}
STUDENTS = {"ana", "ben"}
ADDRESS = "http://127.0.0.1:8000"
ROSTER = "class-roster"

c = get_config()

c.JupyterHub.bind_url = ADDRESS
c.Authenticator.allowed_users = STUDENTS | INSTRUCTORS
c.Spawner.default_url = "/lab"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.mem_limit = "6G"
c.Spawner.cpu_limit = 1
c.Spawner.environment = {"OMP_NUM_THREADS": "1"}
c.Spawner.args = [
    "--Workbench.threads=1",
    "--Workbench.memory_gib=4",
    "--Workbench.seconds=3600",
    "--Workbench.runs_per_user=1",
    # the roster's service is who asks each server for its counts.
    f"--Workbench.instructors={ROSTER}",
]

c.JupyterHub.services = [
    {
        "name": ROSTER,
        "url": "http://127.0.0.1:10101",
        "command": [sys.executable, "-m", "workbench.lab.class_roster", "--servers", ADDRESS],
        "oauth_no_confirm": True,
    }
]
c.JupyterHub.load_roles = [
    {"name": ROSTER, "scopes": ["list:users", "read:servers", "access:servers"], "services": [ROSTER]},
    {"name": "instructor", "scopes": [f"access:services!service={ROSTER}"], "users": sorted(INSTRUCTORS)},
]
