"The command `ddpm`."
