"`python -m ddpm_course` and `torchrun -m ddpm_course` are the `ddpm` command."
from ddpm_course.cli.main import main

if __name__ == "__main__":
    main()
