sockets: list[object] = []
